"""The task ``llama``: a decoder that learns to predict the next token of a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from torch import Tensor

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import Batch
from trainctl.parallel.models.hf_folder import CONFIG, FOLDER_HINT, HfFolder, open_folder
from trainctl.parallel.models.hf_weights import load_weights
from trainctl.parallel.models.llama import Llama, Packing, hf_config
from trainctl.parallel.plan.llama_folder import llama_folder_problems
from trainctl.parallel.tasks.next_token import NextTokenLoss
from trainctl.parallel.tasks.task import TaskContext, TaskParts
from trainctl.parallel.tasks.text import TextData


def logits_of(model: Llama) -> Callable[[Batch], Tensor]:
    """The model as ``NextTokenLoss`` calls it."""
    return lambda batch: model(batch.ids, Packing(batch.positions(), batch.attention_mask()))


class LlamaTask:
    """Implements ``Task``."""

    def build(self, context: TaskContext) -> TaskParts:
        """Tokens from the cache (or made now), the model, its loss, and what transformers needs beside the weights.

        Raises:
            SpecError: ``model.path`` holds another model, or one for other tokens.
            CheckpointError: its weights are damaged.
            PlanError: its weights are not those of its config.
        """
        spec, folder = context.spec, _folder(context.spec)
        text = context.text()
        vocab_size = text.vocab_size if folder is None else _vocabulary(folder, text)
        model = Llama(spec.model, vocab_size, seed=spec.seed, dtype=context.dtype)
        if folder is not None:
            load_weights(model, folder)
        model.to(context.device)
        return TaskParts(
            model=model,
            dataset=text.train,
            eval_dataset=text.held_out,
            loss=NextTokenLoss(logits_of(model), context.device, bfloat16=context.bfloat16),
            artifacts=_artifacts(spec, text, vocab_size),
            data_digest=text.digest,
        )


def _folder(spec: TrainSpec) -> HfFolder | None:
    """The folder whose weights are to be continued, if there is one."""
    if not spec.model.path:
        return None
    folder, problems = open_folder(spec.model)
    if folder is not None:
        problems = llama_folder_problems(folder.config, spec.model)
    if problems:
        raise SpecError(problems, source="spec.train", hint=FOLDER_HINT)
    return folder if folder is not None and folder.weight_files else None


def _vocabulary(folder: HfFolder, text: TextData) -> int:
    """The weights' own, which may be larger than the tokenizer's."""
    found = folder.config.get("vocab_size")
    if not isinstance(found, int) or text.vocab_size > found:
        message = (
            f"its ids go up to {text.vocab_size - 1}, but vocab_size of {folder.path}/{CONFIG} is {found}: use that "
            f"model's tokenizer (kind: file, path: {folder.path})"
        )
        raise SpecError((Problem(path="spec.train.tokenizer", message=message),), source="spec.train")
    return found


def _artifacts(spec: TrainSpec, text: TextData, vocab_size: int) -> Mapping[str, bytes]:
    texts: dict[str, object] = {
        "config.json": hf_config(spec.model, vocab_size),
        "generation_config.json": {"do_sample": True, "temperature": 0.8, "max_length": spec.model.context},
    }
    return {**{name: json.dumps(content, indent=2).encode() for name, content in texts.items()}, **text.artifacts}
