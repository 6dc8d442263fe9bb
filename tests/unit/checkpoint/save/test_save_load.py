"""Without it a checkpoint of one layout could come back changed in another, in bits, places or dtypes."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from trainctl.checkpoint.engine import CheckpointWriter, assign, load
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Flat, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES
from trainctl.checkpoint.save.saving import live_data
from trainctl.core.errors import CheckpointError, PlanError
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.layouts import layouts, shapes
from unit.checkpoint.ranks import (
    SHAPES,
    at_step,
    attempt,
    flats,
    full_values,
    key,
    part_of,
    plain,
    rank_state,
    rows,
    same_bits,
    save,
)

CUTS = {"plain": plain, "rows": rows, "columns": lambda v, n: rows(v, n, dim=1), "flats": flats}


@pytest.mark.parametrize("ranks_before", [1, 3])
@pytest.mark.parametrize("ranks_after", [1, 2])
@pytest.mark.parametrize("before", CUTS)
@pytest.mark.parametrize("after", CUTS)
def test_any_layout_loads_into_any_other(
    tmp_path: Path, before: str, after: str, ranks_before: int, ranks_after: int
) -> None:
    values = full_values()
    ref = save(tmp_path, values, layout=CUTS[before](values, ranks_before), max_file_bytes=64)
    layout = CUTS[after](values, ranks_after)
    for holder in layout.holders:
        state = rank_state(values, layout, holder, blank=True)
        assert load(ref, state, everything=values) == {"cursor": 12, "loss": 0.1}
        for tensor in state.tensors:
            assert same_bits(tensor.tensor, part_of(values[tensor.key], tensor.region)), (tensor.key, tensor.region)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_shapes_and_layouts_round_trip(data: st.DataObject) -> None:
    table = {name: data.draw(shapes) for name in ("a", "b", "c")}
    values = full_values(
        table, seed=data.draw(st.integers(0, 9)), dtype=data.draw(st.sampled_from(["F32", "BF16", "I8"]))
    )
    keys = {k: tuple(v.shape) for k, v in values.items()}
    ragged = data.draw(layouts(keys, "rank", max_holders=3))
    disjoint = {h: {k: ragged.parts(h, k) for k in held} for h, held in ragged.holders.items()}
    everything = disjoint | {rank_holder(9): {k: (whole(s),) for k, s in keys.items()}}
    ref = save(
        f"memory://{uuid.uuid4()}",
        values,
        layout=Layout(keys, everything),
        max_file_bytes=data.draw(st.sampled_from([7, 50, 1 << 20])),
    )
    target = data.draw(layouts(keys, "rank", max_holders=3))
    for holder in target.holders:
        state = rank_state(values, target, holder, blank=True)
        if not set(keys) <= {t.key for t in state.tensors}:
            with pytest.raises(CheckpointError, match="in the checkpoint, but not wanted"):
                load(ref, state)
        load(ref, state, everything=keys)
        for tensor in state.tensors:
            assert same_bits(tensor.tensor, part_of(values[tensor.key], tensor.region))


@pytest.mark.parametrize(
    "dtype", ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "F16", "BF16", "I32", "F32", "I64", "F64", "C64"]
)
def test_every_dtype_keeps_its_bits(tmp_path: Path, dtype: str) -> None:
    values = full_values(dtype=dtype)
    ref = save(tmp_path, values)
    layout = rows(values, 2)
    for holder in layout.holders:
        state = rank_state(values, layout, holder, blank=True)
        load(ref, state, everything=values)
        assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)


def test_tensors_larger_than_a_checksum_block_and_a_file(tmp_path: Path) -> None:
    values = full_values({"big": (3, 1 << 20), "small": (3,)})
    ref = save(tmp_path, values, layout=plain(values, 3), max_file_bytes=3 << 20)
    layout = rows(values, 2, dim=1)
    for holder in layout.holders:
        state = rank_state(values, layout, holder, blank=True)
        load(ref, state, everything=values)
        assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)


def test_live_tensors_that_are_not_contiguous_are_saved_and_filled(tmp_path: Path) -> None:
    base = torch.arange(20, dtype=torch.float32).reshape(4, 5)
    values = {key("w"): base.t()}
    ref = save(tmp_path, values)
    storage = torch.zeros(4, 10)
    live = storage.t()[:5]
    load(ref, LocalState((StateTensor(key("w"), (5, 4), whole((5, 4)), live),)))
    assert torch.equal(live, base.t())
    assert torch.equal(storage[:, 5:], torch.zeros(4, 5))


def test_data_files_are_aligned_safetensors_without_pickle(tmp_path: Path) -> None:
    values = full_values()
    save(tmp_path, values, layout=plain(values, 1))
    (path,) = tmp_path.glob("step-000000000001/*/data/*.safetensors")
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(SHAPES)
        assert file.metadata()["format"] == "pt"
        for state_key, value in values.items():
            assert same_bits(file.get_tensor(state_key.fqn), value)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 4096 == 0
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}


def test_every_byte_is_written_once_and_evenly(tmp_path: Path) -> None:
    values = full_values({f"layer{i}": (256, 128) for i in range(6)})
    save(tmp_path, values, layout=plain(values, 4))
    sizes = [p.stat().st_size - 4096 for p in tmp_path.rglob("*.safetensors")]
    assert len(sizes) == 4
    assert sum(sizes) == 6 * 256 * 128 * 4
    assert max(sizes) <= 1.35 * sum(sizes) / 4  # pieces of 64 KiB


def test_a_state_that_nobody_holds_is_not_assigned() -> None:
    with pytest.raises(PlanError, match=r"param of w: no rank holds elements 0:4 of \[4\]"):
        assign(Layout({key("w"): (4,)}, {"rank:0": {}}))


def test_parts_that_nobody_holds_are_a_line_for_all_that_are_alike() -> None:
    moments = {key(f"layers.{number}.w", kind=kind): (8,) for number in range(40) for kind in ("exp_avg", "exp_avg_sq")}
    half = {k: (Flat(0, 4),) for k in moments}
    with pytest.raises(PlanError) as caught:
        assign(Layout(moments, {"rank:0": half, "rank:1": {}}))
    assert str(caught.value).splitlines()[1:] == [
        "exp_avg and exp_avg_sq of layers.{0-39}.w (40 tensors): no rank holds elements 4:8 of [8]"
    ]


def test_all_differences_are_listed_and_nothing_is_touched(tmp_path: Path) -> None:
    ref = save(tmp_path, full_values({"same": (2,), "shape": (2, 3), "gone": (1,)}) | full_values({"type": (4,)}))
    wanted = full_values({"same": (2,), "shape": (3, 2), "new": (1,)}) | full_values({"type": (4,)}, dtype="BF16")
    state = rank_state(wanted, plain(wanted, 1), "rank:0", blank=True)
    with pytest.raises(CheckpointError) as caught:
        load(ref, state)
    message = str(caught.value)
    assert message.startswith(f"{ref.uri} does not fit the state to load it into (4 differences):\n")
    assert "param of shape: expected shape [3, 2], found [2, 3]" in message
    assert "param of type: expected BF16, found F32 (cast=True was not given)" in message
    assert "param of new: wanted, but not in the checkpoint" in message
    assert "param of gone: in the checkpoint, but not wanted" in message
    assert all(not t.tensor.float().any() for t in state.tensors)


def test_a_cast_on_load_has_to_be_asked_for(tmp_path: Path) -> None:
    values = {key("w"): torch.randn(5, 7)}
    ref = save(tmp_path, values)
    live = torch.zeros(5, 7, dtype=torch.bfloat16)
    state = LocalState((StateTensor(key("w", "BF16"), (5, 7), whole((5, 7)), live),))
    with pytest.raises(CheckpointError, match="cast=True was not given"):
        load(ref, state)
    load(ref, state, cast=True)
    assert torch.equal(live, values[key("w")].to(torch.bfloat16))


def test_tied_weights_load_into_untied_ones_and_back(tmp_path: Path) -> None:
    tied = {key("embed"): torch.randn(4, 3)}
    ref = save(tmp_path / "tied", tied, aliases={"head": "embed"})
    untied = {key("embed"): torch.zeros(4, 3), key("head"): torch.zeros(4, 3)}
    state = rank_state(untied, plain(untied, 1), "rank:0")
    load(ref, state)
    assert all(torch.equal(t.tensor, tied[key("embed")]) for t in state.tensors)
    both = {key("embed"): torch.randn(4, 3), key("head"): torch.randn(4, 3)}
    ref = save(tmp_path / "untied", both)
    live = torch.zeros(4, 3)
    load(ref, LocalState((StateTensor(key("embed"), (4, 3), whole((4, 3)), live),), aliases={"head": "embed"}))
    assert torch.equal(live, both[key("embed")])


def test_later_saves_hold_later_values(tmp_path: Path) -> None:
    values = full_values({"w": (9,)}, seed=1)
    refs = []
    for step in (1, 2, 3):
        stepped = {k: v + step for k, v in at_step({key("w"): torch.zeros(9)}, step).items()}
        refs.append(save(tmp_path, stepped, of=attempt(step)))
    for step, ref in enumerate(refs, start=1):
        state = rank_state(values, plain(values, 1), "rank:0", blank=True)
        load(ref, state)
        assert torch.equal(state.tensors[0].tensor, torch.full((9,), float(step)))


def test_saving_and_loading_give_a_sign_of_life_for_every_piece(tmp_path: Path) -> None:
    values = full_values({"w": (3 * PIECE_BYTES // 4 + 1,)})  # three pieces and a bit
    signs: list[int] = []
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    layout = plain(values, 1)
    state = rank_state(values, layout, rank_holder(0))
    data = live_data(state, assign(layout)[rank_holder(0)])
    report = writer.write_part(attempt(), writer=0, data=data, shapes=state.shapes(), alive=lambda: signs.append(1))
    assert len(signs) >= 4
    ref = writer.seal(attempt(), state=state, parts=[report], parent=None)
    signs.clear()
    load(ref, state, verify_first=False, alive=lambda: signs.append(1))
    assert len(signs) >= 4
