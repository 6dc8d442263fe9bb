"""What is said of a checkpoint that does not fit: all of it, in lines that a person reads.

Without it whoever changed a model would have to guess why it does not load.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from trainctl.checkpoint import nearest as nearest_module
from trainctl.checkpoint.differences import Difference, grouped
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.library.ranks import failures
from trainctl.checkpoint.load.loading import load
from trainctl.checkpoint.load.matching import match
from trainctl.checkpoint.nearest import nearest
from trainctl.core.errors import UnfitCheckpointError
from unit.checkpoint.ranks import full_values, key, plain, rank_state, save

Tensors = Mapping[str, Shape]
WHERE = "/runs/step-000000000003/0123456789abcdef"


def refused(saved: Mapping[StateKey, Shape], wanted: Mapping[StateKey, Shape]) -> UnfitCheckpointError:
    everything = {(one.fqn, one.kind) for one in wanted}
    with pytest.raises(UnfitCheckpointError) as caught:
        match(saved, wanted, where=WHERE, saved_aliases={}, wanted_aliases={}, everything=everything, cast=False)
    return caught.value


def lines(saved: Tensors, wanted: Tensors) -> list[str]:
    error = refused({key(n): s for n, s in saved.items()}, {key(n): s for n, s in wanted.items()})
    return str(error).split("\n")


OLD = ("embed", "ln_f", "wpe", "q_proj", "k_proj", "v_proj", "out", "up", "gate", "down", "norm_in", "norm_out")
NEW = (
    "embedding",
    "ln_final",
    "wpes",
    "wq_proj",
    "wk_proj",
    "wv_proj",
    "outp",
    "upp",
    "gates",
    "downs",
    "norm_i",
    "normout",
)


def test_every_difference_is_named_at_once_and_every_renamed_tensor_with_its_new_name(tmp_path: Path) -> None:
    """Twelve were renamed, three have another shape, two are left over."""
    sizes = {name: (index + 2, 3) for index, name in enumerate(OLD)}
    shaped = {"head": (9, 4), "bias": (7,), "scale": (2, 2)}
    values = full_values({**sizes, **shaped, "same": (2,), "zz_extra": (1,), "unused_statistics": (1,)})
    ref = save(tmp_path, values)
    other = {"head": (4, 9), "bias": (8,), "scale": (2, 3)}
    wanted = full_values({**dict(zip(NEW, sizes.values(), strict=True)), **other, "same": (2,)})
    state = rank_state(wanted, plain(wanted, 1), "rank:0", blank=True)
    with pytest.raises(UnfitCheckpointError) as caught:
        load(ref, state)
    head, *said = str(caught.value).split("\n")
    assert "(17 differences)" in head
    assert len(said) == 17
    for old, new in zip(OLD, NEW, strict=True):
        line = (
            f"param of {new}: wanted, but not in the checkpoint; the nearest name there is {old}, not wanted otherwise"
        )
        assert line in said
    for name, shape in other.items():
        assert f"param of {name}: expected shape {list(shape)}, found {list(shaped[name])}" in said
    for name in ("zz_extra", "unused_statistics"):
        assert f"param of {name}: in the checkpoint, but not wanted" in said
    assert caught.value.differences == tuple(said)
    assert all(not t.tensor.float().any() for t in state.tensors)


def test_what_is_alike_in_all_layers_is_one_line() -> None:
    saved = {f"layers.{n}.attn.query.weight": (4, 4) for n in range(32)} | {"norm": (4,)}
    wanted = {f"layers.{n}.attn.q.weight": (4, 4) for n in range(32)} | {"norm": (4,)}
    assert lines(saved, wanted)[1:] == [
        "param of layers.{0-31}.attn.q.weight (32 tensors): wanted, but not in the checkpoint; "
        "the nearest names there are layers.{0-31}.attn.query.weight, not wanted otherwise"
    ]


def test_only_some_layers_and_experts_are_told_apart() -> None:
    wanted = [f"h.{n}.w" for n in (0, 1, 2, 7)] + [f"h.{n}.experts.{e}.w" for n in (3, 4) for e in range(8)]
    wanted += ["h.5.experts.1.w"]
    assert grouped(Difference("param", name, "is odd") for name in wanted) == [
        "param of h.{0-2,7}.w (4 tensors): is odd",
        "param of h.3.experts.{0-7}.w (8 tensors): is odd",
        "param of h.4.experts.{0-7}.w (8 tensors): is odd",
        "param of h.5.experts.1.w: is odd",
    ]
    assert grouped(Difference("param", name, "is odd") for name in wanted[4:-1]) == [
        "param of h.{3-4}.experts.{0-7}.w (16 tensors): is odd",
    ]


def test_every_name_can_be_found_in_its_line() -> None:
    names = [f"block_{a}.conv{b}.{c}.w" for a in range(3) for b in (1, 3) for c in (0, 5, 6) if (a, b, c) != (1, 3, 5)]
    names += ["block_007.w", "block_07.w", "block_7.w"]
    named = [name for line in grouped(Difference("param", name, "x") for name in names) for name in spelled_out(line)]
    assert sorted(named) == sorted(names)


def spelled_out(line: str) -> list[str]:
    """All names that a label stands for, found without the code that made it."""
    label = line.removeprefix("param of ").split(": ")[0].split(" (")[0]
    found = [""]
    for text, numbers in re.findall(r"([^{}]*)(?:\{([^}]*)\})?", label):
        spans = [list(map(int, span.split("-"))) for span in numbers.split(",") if span]
        values = [str(n) for span in spans for n in range(span[0], span[-1] + 1)] or [""]
        found = [before + text + value for before in found for value in values]
    return found


def test_kinds_that_differ_alike_are_one_line() -> None:
    kinds = ("param", "exp_avg", "exp_avg_sq")
    saved = {key("w", kind=kind): (4, 4) for kind in kinds}
    error = refused(saved, {key("w", kind=kind): (4, 5) for kind in kinds})
    assert error.differences == ("exp_avg, exp_avg_sq and param of w: expected shape [4, 5], found [4, 4]",)
    assert "(3 differences)" in str(error)


def test_the_nearest_name_is_one_that_is_free_and_has_the_shape() -> None:
    shapes = {
        ("attn.k.weight", "param"): (8, 4),
        ("attn.qkv.weight", "param"): (24, 4),
        ("attn.kw.weight", "param"): (8, 4),
    }
    spare = [("attn.qkv.weight", "param"), ("attn.kw.weight", "param")]

    def near(name: str, kind: str, shape: Shape, *, spare: Collection[tuple[str, str]] = spare) -> tuple[str, bool]:
        return nearest({(name, kind): shape}, shapes, spare).get((name, kind), ("", False))

    assert near("attn.q.weight", "param", (24, 4)) == ("attn.qkv.weight", True)
    assert near("attn.q.weight", "param", (8, 4)) == ("attn.kw.weight", True)
    assert near("attn.q.weight", "param", (8, 4), spare=[]) == ("attn.k.weight", False)
    assert near("something.else", "param", (8, 4)) == ("", False)
    assert near("attn.q.weight", "exp_avg", (8, 4)) == ("", False)


def test_a_free_name_is_the_nearest_of_one_tensor_only() -> None:
    saved = {"w1.weight": (4, 4), "w2.weight": (4, 4), "norm": (4,)}
    assert lines(saved, {"gate.weight": (4, 4), "up.weight": (4, 4), "norm": (4,)})[1:] == [
        "param of gate.weight: wanted, but not in the checkpoint; the nearest name there is w2.weight, "
        "not wanted otherwise",
        "param of up.weight: wanted, but not in the checkpoint; the nearest name there is w1.weight, "
        "not wanted otherwise",
    ]


def test_the_best_pairs_come_first_and_whose_name_is_taken_hears_of_another() -> None:
    saved = {"attn.key": (4, 4), "attn.query": (4, 4), "kept": (4,), "mlp.weights": (8, 4)}
    wanted = {"attn.keys": (4, 4), "attn.k": (4, 4), "kept": (4,), "mlp.weight": (4, 4)}
    said = {line.split(":")[0]: line for line in lines(saved, wanted)[1:]}
    assert "is attn.key, not wanted otherwise" in said["param of attn.keys"]
    assert "attn.key," not in said["param of attn.k"]
    assert "is mlp.weights, not wanted otherwise" in said["param of mlp.weight"], "of another shape, if it is all"


def test_layers_too_many_do_not_share_a_renamed_one() -> None:
    saved = {f"layers.{n}.query": (4, 4) for n in range(3)}
    wanted = {f"layers.{n}.q": (4, 4) for n in range(5)}
    said = lines(saved, wanted)[1:]
    assert said == [
        "param of layers.{0-2}.q (3 tensors): wanted, but not in the checkpoint; the nearest names there are "
        "layers.{0-2}.query, not wanted otherwise",
        "param of layers.{3-4}.q (2 tensors): wanted, but not in the checkpoint",
    ]


def test_of_two_shapes_each_is_told_its_own() -> None:
    saved = {"mlp.w1": (4, 4), "mlp.w2": (8, 4)}
    said = {line.split(":")[0]: line for line in lines(saved, {"mlp.wa": (8, 4), "mlp.wb": (4, 4)})[1:]}
    assert "nearest name there is mlp.w2," in said["param of mlp.wa"]
    assert "nearest name there is mlp.w1," in said["param of mlp.wb"]


def test_a_layer_too_many_is_compared_with_the_last_one_there() -> None:
    saved = {f"layers.{n}.w": (4, 4) for n in range(4)}
    wanted = {f"layers.{n}.w": (4, 4) for n in range(6)}
    assert lines(saved, wanted)[1:] == [
        "param of layers.{4-5}.w (2 tensors): wanted, but not in the checkpoint; the nearest name there is layers.3.w"
    ]


def test_a_layer_too_many_is_not_taken_for_one_that_was_renamed() -> None:
    saved = {f"layers.{n}.{name}": (4,) for n in range(2) for name in ("query.bias", "norm.bias")}
    wanted = {f"layers.{n}.{name}": (4,) for n in range(3) for name in ("q.bias", "norm.bias")}
    said = lines(saved, wanted)[1:]
    assert any("layers.2.norm.bias: " in line and line.endswith("there is layers.1.norm.bias") for line in said)
    assert any("layers.{0-1}.q.bias (2 tensors): " in line and "layers.{0-1}.query.bias, not" in line for line in said)
    assert "param of layers.2.q.bias: wanted, but not in the checkpoint" in said
    assert len(said) == 3


def test_thousands_of_other_numbers_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    distance = nearest_module._distance

    def counted(name: str) -> Callable[[tuple[int, ...]], tuple[int, int, tuple[int, ...]]]:
        apart = distance(name)

        def count(some: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
            nonlocal compared
            compared += 1
            return apart(some)

        return count

    monkeypatch.setattr(nearest_module, "_distance", counted)
    shapes = {(f"layers.{n}.w", "param"): (4,) for n in range(3000)}
    for spare in (shapes, ()):
        wanted = {(f"layers.{n}.w", "param"): (4,) for n in range(3000, 6000)}
        found = nearest(wanted, shapes, list(spare))
        assert found["layers.3000.w", "param"] == ("layers.2999.w", bool(spare))
        assert len(found) == 3000
        if spare:
            assert len(set(found.values())) == 3000, "each free name is given away once"
    assert compared < 2 * 3000 * 250


def test_more_than_anybody_reads_is_in_the_log_and_in_the_error(caplog: pytest.LogCaptureFixture) -> None:
    words = [f"{a}{b}{c}" for a in "abcdefgh" for b in "ijklmno" for c in "pqrstuv"]
    error = refused({key("same"): (1,)}, {key(word): (1,) for word in words})
    said = str(error).split("\n")
    assert len(said) == 202
    assert said[-1] == "and 193 more lines, which are in the log of this process"
    assert len(error.differences) == len(words) + 1 == 393
    assert all(word in caplog.text for word in words)


def test_ranks_that_say_the_same_say_it_once() -> None:
    assert failures(["a", "", "a", "a", "b"]) == ["ranks 0,2-3: a", "rank 4: b"]
