"""A Hugging Face config beside the job file's model, field by field.

Without it weights could be continued in a decoder of another shape.
"""

from __future__ import annotations

from typing import Any

import pytest

from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.plan.llama_folder import llama_folder_problems

MODEL = ModelSpec(
    layers=2, hidden=32, heads=4, kv_heads=2, ffn=48, context=24, tie_embeddings=False, norm_eps=1e-5, rope_theta=500.0
)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
}


def found(**changes: Any) -> dict[str, str]:
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value != "absent"}
    return {problem.path: problem.message for problem in llama_folder_problems(config, MODEL)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        {"head_dim": 8},
        {"head_dim": None},
        {"rope_theta": "absent", "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        {"rope_scaling": None},
        {"rope_scaling": {"type": "default"}},
    ],
)
def test_what_means_the_same(changes: dict[str, Any]) -> None:
    assert found(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"model_type": "mistral"}, "path", 'expected a model of type llama, found "mistral"'),
        ({"hidden_size": 64}, "hidden", "expected 64, as in hidden_size of model.path's config.json, found 32"),
        ({"num_key_value_heads": "absent"}, "kvHeads", "expected 4, as in num_key_value_heads"),
        ({"num_hidden_layers": "absent"}, "path", "its config.json has no num_hidden_layers"),
        ({"num_hidden_layers": None}, "path", "its config.json has no num_hidden_layers"),
        ({"tie_word_embeddings": True}, "tieEmbeddings", "expected True"),
        ({"rms_norm_eps": "absent"}, "normEps", "expected 1e-06"),
        ({"rope_theta": "absent"}, "ropeTheta", "expected 10000.0"),
        ({"rope_parameters": {"rope_theta": 7.0}}, "ropeTheta", "expected 7.0"),
        ({"hidden_act": "gelu"}, "path", "task llama computes with hidden_act silu, its config.json says gelu"),
        ({"attention_bias": True}, "path", "attention_bias False, its config.json says True"),
        ({"mlp_bias": True}, "path", "mlp_bias False, its config.json says True"),
        ({"head_dim": 16}, "path", "its config.json says head_dim 16"),
        ({"rope_scaling": {"type": "linear"}}, "path", 'its config.json says "linear"'),
        ({"rope_parameters": {"rope_type": "yarn"}}, "path", 'its config.json says "yarn"'),
    ],
)
def test_what_does_not(changes: dict[str, Any], path: str, part: str) -> None:
    problems = found(**changes)
    assert part in problems[f"spec.train.model.{path}"]
    assert len(problems) == 1


def test_all_at_once() -> None:
    problems = found(hidden_size=64, num_hidden_layers=3, hidden_act="gelu")
    assert {path.removeprefix("spec.train.model.") for path in problems} == {"hidden", "layers", "path"}
