"""The task ``hf_causal_lm``: any causal language model of transformers, from a folder on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import Batch
from trainctl.parallel.models.hf_causal_lm import build_model, documents_are_apart
from trainctl.parallel.models.hf_folder import CONFIG, FOLDER_HINT, HfFolder, open_folder
from trainctl.parallel.tasks.next_token import NextTokenLoss
from trainctl.parallel.tasks.task import TaskContext, TaskParts
from trainctl.parallel.tasks.text import TextData

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


class HfCausalLmTask:
    """Implements ``Task``."""

    def build(self, context: TaskContext) -> TaskParts:
        """The model as ``config.json`` says, with the folder's weights or random ones, and what an export needs.

        Raises:
            SpecError: the folder is no causal language model that can be trained here, or the data does not fit it.
            CheckpointError: the weights are damaged.
        """
        spec = context.spec
        folder, problems = open_folder(spec.model)
        if folder is None:
            raise SpecError(problems, source="spec.train", hint=FOLDER_HINT)
        model = build_model(folder, spec.model.overrides, seed=context.seed, dtype=context.dtype)
        text = context.text()
        config = model.config.get_text_config()
        if problems := tuple(_misfits(spec, text, config, model)):
            raise SpecError(problems, source="spec.train")
        return TaskParts(
            model=model.to(context.device),
            dataset=text.train,
            eval_dataset=text.held_out,
            loss=NextTokenLoss(logits_of(model), context.device, bfloat16=context.bfloat16),
            artifacts=_artifacts(spec, folder, text, tied=bool(config.tie_word_embeddings)),
            data_digest=text.digest,
        )


def logits_of(model: nn.Module) -> Callable[[Batch], Tensor]:
    """The model as ``NextTokenLoss`` calls it.

    Where rows hold several documents, positions begin at 0 in each: transformers masks the others by that.
    """

    def logits(batch: Batch) -> Tensor:
        packed = {} if batch.documents is None else {"position_ids": batch.positions()}
        logits_BTV: Tensor = model(input_ids=batch.ids, use_cache=False, **packed).logits
        return logits_BTV

    return logits


def _misfits(spec: TrainSpec, text: TextData, config: Any, model: nn.Module) -> list[Problem]:
    """Where the data does not fit the model."""
    problems: list[Problem] = []
    if text.vocab_size > config.vocab_size:
        message = (
            f"its ids go up to {text.vocab_size - 1}, but the model's vocab_size is {config.vocab_size}: use the "
            f"model's tokenizer (kind: file, path: {spec.model.path}), or weights: random and overrides: "
            f"{{vocab_size: {text.vocab_size}}}"
        )
        problems.append(Problem(path="spec.train.tokenizer", message=message))
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and spec.model.context > longest:
        message = f"expected at most {longest} (max_position_embeddings of config.json), found {spec.model.context}"
        problems.append(Problem(path="spec.train.model.context", message=message))
    if not problems and spec.data.packing == "documents" and not documents_are_apart(model):
        message = f"{config.model_type} cannot keep documents of one row apart; use stream or pad"
        problems.append(Problem(path="spec.train.data.packing", message=message))
    return problems


def _artifacts(spec: TrainSpec, folder: HfFolder, text: TextData, *, tied: bool) -> Mapping[str, bytes]:
    """The folder's own files, but for the weights, with what the job file replaced in ``config.json``."""
    config = {**folder.config, **spec.model.overrides, "tie_word_embeddings": tied}
    config.pop("torch_dtype", None)
    config["dtype"] = "float64" if spec.precision == "float64" else "float32"
    files = {**text.artifacts, CONFIG: json.dumps(config, indent=2).encode()}
    for name in ("generation_config.json", *(_TOKENIZER_FILES if _uses_tokenizer_of(spec) else ())):
        if (folder.path / name).is_file():
            files[name] = (folder.path / name).read_bytes()
    return files


def _uses_tokenizer_of(spec: TrainSpec) -> bool:
    tokenizer, folder = Path(spec.tokenizer.path), Path(spec.model.path)
    return spec.tokenizer.kind == "file" and folder in (tokenizer, tokenizer.parent)
