"""Whether the weights of a Hugging Face folder mean the same in the built-in decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainctl.core.errors import Problem
from trainctl.core.plain import is_mapping
from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.plan.model_size import SHAPE_FIELDS, hf_shape

_PATH = "spec.train.model"
_INSTEAD = "task: hf_causal_lm trains it as it is"
_DEFAULTS: Mapping[str, Any] = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_FIXED: Mapping[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


def llama_folder_problems(config: Mapping[str, Any], model: ModelSpec) -> tuple[Problem, ...]:
    """Everything in which the folder's ``config.json`` differs from the job file's model; empty if nothing does."""
    kind = config.get("model_type")
    if kind != "llama":
        return (Problem(path=f"{_PATH}.path", message=f'expected a model of type llama, found "{kind}"; {_INSTEAD}'),)
    findings = [*_shape(config, model), *_fixed(config, model)]
    return tuple(Problem(path=f"{_PATH}.{field}", message=message) for field, message in findings)


def _shape(config: Mapping[str, Any], model: ModelSpec) -> Iterator[tuple[str, str]]:
    found = {**_DEFAULTS, "num_key_value_heads": config.get("num_attention_heads"), **_without_none(config)}
    rope = config.get("rope_parameters")
    if is_mapping(rope) and "rope_theta" in rope:
        found["rope_theta"] = rope["rope_theta"]
    for name, wanted in hf_shape(model).items():
        if name not in found:
            yield "path", f"its config.json has no {name}"
        elif found[name] != wanted:
            yield (
                SHAPE_FIELDS[name],
                f"expected {found[name]}, as in {name} of model.path's config.json, found {wanted}",
            )


def _fixed(config: Mapping[str, Any], model: ModelSpec) -> Iterator[tuple[str, str]]:
    for name, wanted in _FIXED.items():
        if config.get(name, wanted) != wanted:
            yield "path", f"task llama computes with {name} {wanted}, its config.json says {config[name]}; {_INSTEAD}"
    head = config.get("head_dim")
    if head is not None and model.heads and head != model.hidden // model.heads:
        yield "path", f"task llama has heads of hidden / heads, its config.json says head_dim {head}; {_INSTEAD}"
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        kind = rope.get("rope_type", rope.get("type", "default")) if is_mapping(rope) else "default"
        if kind != "default":
            yield "path", f'task llama knows plain rotary positions only, its config.json says "{kind}"; {_INSTEAD}'


def _without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}
