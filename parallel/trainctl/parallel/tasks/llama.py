"""The task ``llama``: a decoder that learns to predict the next token of a text."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from trainctl.core.errors import Problem
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import IGNORED, Batch
from trainctl.parallel.data.dataset import TextDataset
from trainctl.parallel.data.token_cache import Tokens, open_tokens
from trainctl.parallel.data.tokenizer import check_tokenizer, tokenizer_config
from trainctl.parallel.models.llama import Llama, Packing, hf_config
from trainctl.parallel.plan.model_size import shape_problems
from trainctl.parallel.tasks.task import TaskParts


class NextTokenLoss:
    """Cross-entropy of the next token, summed, in float32 (float64 for a float64 model).

    Shape suffixes: B batch, T context, V vocabulary.
    """

    def __init__(self, model: Llama, device: torch.device, *, bfloat16: bool) -> None:
        self._model = model
        self._device = device
        self._bfloat16 = bfloat16

    def __call__(self, batch: Batch) -> tuple[Tensor, int]:
        """Summed loss and number of targets."""
        batch = batch.to(self._device)
        packing = Packing(batch.positions(), batch.attention_mask())
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits_BTV = self._model(batch.ids, packing)
        if logits_BTV.dtype is torch.bfloat16:
            logits_BTV = logits_BTV.float()
        loss_sum = functional.cross_entropy(
            logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss_sum, batch.num_targets


class LlamaTask:
    """Implements ``Task``."""

    def check(self, spec: TrainSpec) -> tuple[Problem, ...]:
        """Problems of the model's shape and the tokenizer."""
        return shape_problems(spec.model) + check_tokenizer(spec.tokenizer)

    def build(self, spec: TrainSpec, cache_dir: Path, device: torch.device) -> TaskParts:
        """Tokens from the cache (or made now), the model, its loss, and what transformers needs beside the weights."""
        tokens = open_tokens(spec.data, spec.tokenizer, cache_dir=cache_dir)
        vocab_size = tokens.tokenizer.vocab_size
        dtype = torch.float64 if spec.precision == "float64" else torch.float32
        model = Llama(spec.model, vocab_size, seed=spec.seed, dtype=dtype).to(device)
        context = spec.model.context
        held_out = TextDataset(tokens.held_out, context=context, name="the held-out text") if spec.eval.every else None
        return TaskParts(
            model=model,
            dataset=TextDataset(tokens.train, context=context, name=f"the training text of {spec.data.uri}"),
            eval_dataset=held_out,
            loss=NextTokenLoss(model, device, bfloat16=spec.precision == "auto" and has_bfloat16(device)),
            artifacts=_artifacts(spec, tokens),
            data_digest=tokens.digest,
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``precision: auto`` means bfloat16 autocast on this device; a CPU computes in float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _artifacts(spec: TrainSpec, tokens: Tokens) -> dict[str, bytes]:
    texts: dict[str, object] = {
        "config.json": hf_config(spec.model, tokens.tokenizer.vocab_size),
        "generation_config.json": {"do_sample": True, "temperature": 0.8, "max_length": spec.model.context},
        "tokenizer_config.json": tokenizer_config(spec.model.context),
    }
    files = {name: json.dumps(content, indent=2).encode() for name, content in texts.items()}
    return files | {"tokenizer.json": tokens.tokenizer.to_json().encode()}
