"""Which fields of ``spec.train`` go with which task; without torch, so that a submission is checked where none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainctl.core.errors import Problem
from trainctl.core.findings import Finding, one_of
from trainctl.core.import_paths import is_import_path
from trainctl.core.records.train_spec import ModelSpec, TrainSpec
from trainctl.parallel.plan.model_size import shape_problems

LLAMA = "llama"
HF_CAUSAL_LM = "hf_causal_lm"
WEIGHTS = ("auto", "load", "random")

_SHAPE_FIELDS: Mapping[str, str] = {
    "layers": "layers",
    "hidden": "hidden",
    "heads": "heads",
    "kv_heads": "kvHeads",
    "ffn": "ffn",
    "rope_theta": "ropeTheta",
    "dropout": "dropout",
    "tie_embeddings": "tieEmbeddings",
    "norm_eps": "normEps",
}
"""Fields of the built-in decoder, and their names in the job file."""


def task_problems(train: TrainSpec) -> tuple[Problem, ...]:
    """Everything wrong with the task and its model that shows without touching a disk."""
    found = [Problem(path=f"spec.train.{path}", message=message) for path, message in _findings(train)]
    if train.task == LLAMA:
        found += shape_problems(train.model)
    return tuple(found)


def _findings(train: TrainSpec) -> Iterator[Finding]:
    model, own = train.model, is_import_path(train.task)
    if not own and train.task not in (LLAMA, HF_CAUSAL_LM):
        yield "task", f'expected {LLAMA}, {HF_CAUSAL_LM} or module:callable, found "{train.task[:100]}"'
        return
    if train.options and not own:
        yield "options", "are for a task of your own (task: module:callable); leave them out"
    yield from one_of("model.weights", model.weights, *WEIGHTS)
    if not own:
        yield from _folder(train.task, model)
    if train.task != LLAMA and model.context < 1:
        yield "model.context", f"expected at least 1, found {model.context}"


def _folder(task: str, model: ModelSpec) -> Iterator[Finding]:
    if model.weights == "load" and not model.path:
        yield "model.weights", "load needs model.path, the folder to load from"
    if task == LLAMA:
        if model.overrides:
            yield "model.overrides", f"are for task {HF_CAUSAL_LM}; write the shape into the fields of spec.train.model"
        return
    if not model.path:
        yield "model.path", f"is required by task {HF_CAUSAL_LM}: the absolute path of a folder with config.json"
    default = ModelSpec()
    for name, spelled in _SHAPE_FIELDS.items():
        if getattr(model, name) != getattr(default, name):
            yield f"model.{spelled}", f"is for task {LLAMA}; of {HF_CAUSAL_LM} config.json says it, or model.overrides"
