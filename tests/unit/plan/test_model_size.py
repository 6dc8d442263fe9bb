"""The decoder's shape as numbers. Without it a job could be refused, or let in, for a model that it does not have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.plan.model_size import ffn_size, hf_shape, kv_head_count, llama_parameters, shape_problems

SHAPE = ModelSpec(layers=2, hidden=12, heads=3, kv_heads=1, ffn=20, context=8, tie_embeddings=False)


def counted(*shapes: tuple[int, ...]) -> int:
    total = 0
    for rows, columns in shapes:
        total += rows * columns
    return total


def test_parameters_are_those_of_the_matrices() -> None:
    layer = counted((12, 12), (4, 12), (4, 12), (12, 12), (20, 12), (20, 12), (12, 20), (1, 12), (1, 12))
    assert llama_parameters(SHAPE, 50) == 2 * layer + counted((50, 12), (50, 12), (1, 12))
    assert llama_parameters(replace(SHAPE, tie_embeddings=True), 50) == 2 * layer + counted((50, 12), (1, 12))


@pytest.mark.parametrize(("hidden", "width"), [(24, 64), (25, 128), (48, 128), (768, 2048), (4096, 10944)])
def test_the_feed_forward_layer_is_eight_thirds_rounded_up_to_64(hidden: int, width: int) -> None:
    assert ffn_size(ModelSpec(hidden=hidden, ffn=0)) == width
    assert ffn_size(ModelSpec(hidden=hidden, ffn=7)) == 7


def test_each_query_head_has_a_key_head_unless_it_is_said() -> None:
    assert kv_head_count(ModelSpec(heads=6, kv_heads=0)) == 6
    assert kv_head_count(ModelSpec(heads=6, kv_heads=2)) == 2
    assert hf_shape(ModelSpec(heads=6, kv_heads=0))["num_key_value_heads"] == 6


def problems(**changes: object) -> dict[str, str]:
    found = shape_problems(replace(SHAPE, **changes), path="m")  # type: ignore[arg-type]
    return {problem.path: problem.message for problem in found}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 1, "hidden": 2, "heads": 1, "context": 2, "kv_heads": 0, "ffn": 0},
        {"kv_heads": 3},
        {"dropout": 0.0},
        {"norm_eps": 0.5},
        {"rope_theta": 0.001},
    ],
)
def test_what_can_be_built(changes: dict[str, object]) -> None:
    assert problems(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"layers": 0}, "m.layers", "expected at least 1, found 0"),
        ({"hidden": 0}, "m.hidden", "expected at least 1, found 0"),
        ({"heads": 0}, "m.heads", "expected at least 1, found 0"),
        ({"context": 1}, "m.context", "expected at least 2, found 1"),
        ({"kv_heads": -1}, "m.kvHeads", "expected at least 0, found -1"),
        ({"ffn": -1}, "m.ffn", "expected at least 0, found -1"),
        ({"rope_theta": 0.0}, "m.ropeTheta", "greater than 0 and finite, found 0"),
        ({"rope_theta": float("inf")}, "m.ropeTheta", "found inf"),
        ({"norm_eps": 0.0}, "m.normEps", "greater than 0 and less than 1, found 0"),
        ({"norm_eps": 1.0}, "m.normEps", "less than 1, found 1"),
        ({"dropout": 1.0}, "m.dropout", "at least 0 and less than 1, found 1"),
        ({"dropout": -0.1}, "m.dropout", "found -0.1"),
        ({"hidden": 13}, "m.hidden", "13 is not a multiple of heads (3)"),
        ({"hidden": 9}, "m.hidden", "hidden / heads is 3; rotary embeddings need an even number"),
        ({"kv_heads": 2}, "m.kvHeads", "heads (3) is not a multiple of kvHeads (2)"),
        ({"layers": 10**12}, "m.layers", "expected at most 1e+13"),
    ],
)
def test_what_cannot(changes: dict[str, object], path: str, part: str) -> None:
    found = problems(**changes)
    assert part in found[path]
    assert len(found) == 1


def test_all_at_once() -> None:
    assert set(problems(layers=0, context=0, dropout=2.0)) == {"m.layers", "m.context", "m.dropout"}
