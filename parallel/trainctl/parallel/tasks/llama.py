"""The task ``llama``: a decoder that learns to predict the next token of a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from torch import Tensor

from trainctl.core.errors import Problem
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import Batch
from trainctl.parallel.data.tokenizer import check_tokenizer
from trainctl.parallel.models.llama import Llama, Packing, hf_config
from trainctl.parallel.plan.model_size import shape_problems
from trainctl.parallel.tasks.next_token import NextTokenLoss
from trainctl.parallel.tasks.task import TaskContext, TaskParts
from trainctl.parallel.tasks.text import TextData


def logits_of(model: Llama) -> Callable[[Batch], Tensor]:
    """The model as ``NextTokenLoss`` calls it."""
    return lambda batch: model(batch.ids, Packing(batch.positions(), batch.attention_mask()))


class LlamaTask:
    """Implements ``Task``."""

    def check(self, spec: TrainSpec) -> tuple[Problem, ...]:
        """Problems of the model's shape and the tokenizer."""
        return shape_problems(spec.model) + check_tokenizer(spec.tokenizer)

    def build(self, context: TaskContext) -> TaskParts:
        """Tokens from the cache (or made now), the model, its loss, and what transformers needs beside the weights."""
        spec, text = context.spec, context.text()
        model = Llama(spec.model, text.vocab_size, seed=spec.seed, dtype=context.dtype).to(context.device)
        return TaskParts(
            model=model,
            dataset=text.train,
            eval_dataset=text.held_out,
            loss=NextTokenLoss(logits_of(model), context.device, bfloat16=context.bfloat16),
            artifacts=_artifacts(spec, text),
            data_digest=text.digest,
        )


def _artifacts(spec: TrainSpec, text: TextData) -> Mapping[str, bytes]:
    texts: dict[str, object] = {
        "config.json": hf_config(spec.model, text.vocab_size),
        "generation_config.json": {"do_sample": True, "temperature": 0.8, "max_length": spec.model.context},
    }
    return {**{name: json.dumps(content, indent=2).encode() for name, content in texts.items()}, **text.artifacts}
