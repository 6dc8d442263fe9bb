"""Which tensors of a nested dict are parameters and which an optimizer's state; what is unclear is asked for.

Without it momentum could be taken for weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trainctl.checkpoint.importing.naming import Naming, Recognised, recognise
from trainctl.checkpoint.importing.source import SourceTensor
from trainctl.core.errors import UsageError

Path = tuple[str, ...]


def found(paths: Sequence[Path], others: Sequence[Path] = (), **naming: object) -> Recognised:
    tensors = [SourceTensor(path, "F32", (), ()) for path in paths]
    return recognise(tensors, others, Naming(**naming))  # type: ignore[arg-type]


def names(recognised: Recognised) -> set[tuple[str, str]]:
    return {(named.fqn, named.kind) for named in recognised.tensors}


MODEL = [("model", "a.w"), ("model", "a.b")]
MOMENTS = [("optim", "state", "a.w", "exp_avg"), ("optim", "state", "a.b", "exp_avg")]
ALL = {("a.w", "param"), ("a.b", "param"), ("a.w", "exp_avg"), ("a.b", "exp_avg")}


@pytest.mark.parametrize(
    "paths",
    [
        [*MODEL, *MOMENTS],
        [("app", *path) for path in (*MODEL, *MOMENTS)],
        [("a.w",), ("a.b",), ("optimizer", "state.a.w.exp_avg"), ("optimizer", "state.a.b.exp_avg")],
        [("a.w",), ("a.b",), ("state.a.w.exp_avg",), ("state.a.b.exp_avg",)],
        [("net", "a.w"), ("net", "a.b"), ("o", "state", "a.w", "exp_avg"), ("o", "state", "a.b", "exp_avg")],
    ],
)
def test_nestings_that_are_common_are_understood(paths: list[Path]) -> None:
    assert names(found(paths)) == ALL
    assert names(found(paths, parameters_only=True)) == {("a.w", "param"), ("a.b", "param")}


def test_a_module_called_state_is_no_optimizer() -> None:
    paths = [("model", "state.proj.weight"), ("model", "w"), ("optim", "state", "state.proj.weight", "exp_avg")]
    assert names(found(paths)) == {
        ("state.proj.weight", "param"),
        ("w", "param"),
        ("state.proj.weight", "exp_avg"),
    }


def test_a_dict_of_dicts_is_joined_where_a_section_is_named() -> None:
    paths = [("net", "encoder", "w"), ("net", "decoder", "w"), ("ema", "w")]
    with pytest.raises(UsageError, match=r"found tensors under ema \(1\), net \(2\)"):
        found(paths)
    assert names(found(paths, section="net")) == {("encoder.w", "param"), ("decoder.w", "param")}
    assert names(found(paths, section="net.encoder")) == {("w", "param")}
    with pytest.raises(UsageError, match="--section x: expected tensors there"):
        found(paths, section="x")


def test_a_tensor_at_the_top_does_not_pass_for_the_model() -> None:
    with pytest.raises(UsageError, match=r"found tensors under \. \(1\), net \(1\)"):
        found([("net", "w"), ("step",)])
    only = found([("net", "w"), ("step",)], section=".")
    assert (names(only), only.notes) == ({("step", "param")}, ("left out: 1 tensor under net",))
    assert names(found([("model", "w"), ("step",)])) == {("w", "param")}


def test_two_optimizers_are_not_mixed() -> None:
    with pytest.raises(UsageError, match="found several: one, two"):
        found([*MODEL, ("one", "state", "a.w", "exp_avg"), ("two", "state", "a.b", "exp_avg")])


def test_names_that_meet_after_a_prefix_is_gone_are_refused() -> None:
    with pytest.raises(UsageError, match="expected different names, found w twice"):
        found([("module.w",), ("w",)], strip_prefix="module.")
    assert names(found([("module.a.w",), ("module.a.b",), ("state.module.a.w.exp_avg",)], strip_prefix="module.")) == {
        ("a.w", "param"),
        ("a.b", "param"),
        ("a.w", "exp_avg"),
    }


@pytest.mark.parametrize("name", ["a\x1b[2J", "\ud800", "a\nb"])
def test_names_that_are_no_text_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected names of printable characters, found") as caught:
        found([(name,), ("w",)])
    str(caught.value).encode("ascii")
