"""Ranks that load together: the same values as alone, every byte read once, and nobody waits for one that failed.

Without this, loading by n ranks reads rows for columns, or replicas, n times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Box, Flat, common, one_run, volume
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.live.tensors import region_view
from trainctl.checkpoint.load import blocks, filling, readers
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.save import part_writing
from trainctl.core.errors import DamagedCheckpointError, InternalError
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.layouts import elements, regions
from unit.checkpoint.layouts import shapes as any_shape
from unit.checkpoint.memory_exchange import MemoryExchange, PostOffice, at_once
from unit.checkpoint.ranks import flats, full_values, part_of, plain, rank_state, rows, save

SHAPES = {"w": (7, 5), "b": (5,), "scalar": (), "none": (0, 4), "deep": (3, 4, 5), "long": (131,)}
BLOCK_BYTES = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few elements are many blocks, pieces, turns and windows."""
    monkeypatch.setattr(part_writing, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(blocks, "PIECE_BYTES", 4 * BLOCK_BYTES)
    monkeypatch.setattr(readers, "TURN_BYTES", 4 * BLOCK_BYTES)
    monkeypatch.setattr(filling, "WINDOW_BYTES", 10 * BLOCK_BYTES)


def columns(values: Mapping[StateKey, torch.Tensor], ranks: int) -> Layout:
    return rows(values, ranks, dim=1)


def replicas_of_rows(values: Mapping[StateKey, torch.Tensor], ranks: int) -> Layout:
    """Two and two hold the same."""
    cut = rows(values, max(1, ranks // 2))
    held = {rank_holder(r): dict(cut.holders[rank_holder(r % max(1, ranks // 2))]) for r in range(ranks)}
    return Layout(cut.shapes, held)


CUTS = {"plain": plain, "rows": rows, "columns": columns, "flats": flats, "replicas of rows": replicas_of_rows}


def loaded(
    ref: CheckpointRef, states: Sequence[LocalState], wanted: Layout
) -> tuple[Sequence[object], Sequence[LoadWatch], PostOffice]:
    """All ranks load at once; what each gave or raised."""
    office, watches = PostOffice(len(states)), [LoadWatch() for _ in states]

    def one(exchange: MemoryExchange) -> object:
        state, watch = states[exchange.rank], watches[exchange.rank]
        sharing = Sharing(exchange, wanted)
        return load(ref, state, everything=wanted.shapes, verify_first=False, watch=watch, sharing=sharing)

    return at_once(office, one), watches, office


def check(states: Sequence[LocalState], values: Mapping[StateKey, torch.Tensor]) -> None:
    for rank, state in enumerate(states):
        for held in state.tensors:
            expected = part_of(values[held.key], held.region)
            assert (
                held.tensor.view(torch.uint8).tolist() == expected.view(torch.uint8).tolist()
                if (held.tensor.dim())
                else torch.equal(held.tensor.reshape(1).view(torch.uint8), expected.reshape(1).view(torch.uint8))
            ), (
                rank,
                held.key,
                held.region,
            )


@settings(max_examples=25, deadline=None)
@given(
    before=st.sampled_from(sorted(CUTS)),
    after=st.sampled_from(sorted(CUTS)),
    savers=st.integers(1, 4),
    loaders=st.integers(2, 4),
    dtype=st.sampled_from(["F32", "BF16", "I8", "BOOL", "C64"]),
)
def test_any_cut_into_any_other_with_every_byte_read_once(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, savers: int, loaders: int, dtype: str
) -> None:
    values = full_values(SHAPES, dtype=dtype)
    ref = save(tmp_path_factory.mktemp("saved"), values, layout=CUTS[before](values, savers))
    wanted = CUTS[after](values, loaders)
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(loaders)]
    results, watches, office = loaded(ref, states, wanted)
    assert all(result == {"cursor": 12, "loss": 0.1} for result in results), results
    check(states, values)
    whole_bytes = sum(value.numel() * value.element_size() for value in values.values())
    assert sum(watch.moved_bytes for watch in watches) == whole_bytes
    assert not office.left


def test_replicas_share_the_reading_evenly(tmp_path: Path) -> None:
    values = full_values({"w": (64, 32)})
    ref = save(tmp_path, values, layout=plain(values, 1))
    wanted = plain(values, 4)
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(4)]
    _, watches, office = loaded(ref, states, wanted)
    check(states, values)
    assert [watch.moved_bytes for watch in watches] == [64 * 32] * 4
    assert office.sent_bytes == 3 * 64 * 32 * 4


def test_ranks_that_want_different_rows_send_nothing(tmp_path: Path) -> None:
    values = full_values({"w": (64, 32)})
    ref = save(tmp_path, values, layout=rows(values, 4))
    wanted = rows(values, 2)
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(2)]
    _, _, office = loaded(ref, states, wanted)
    check(states, values)
    assert office.sent_bytes == 0


def test_some_ranks_may_want_nothing(tmp_path: Path) -> None:
    values = full_values(SHAPES)
    ref = save(tmp_path, values, layout=rows(values, 3))
    whole = plain(values, 1)
    wanted = Layout(whole.shapes, {**whole.holders, rank_holder(1): {}, rank_holder(2): whole.holders[rank_holder(0)]})
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(3)]
    results, _, office = loaded(ref, states, wanted)
    assert not any(isinstance(result, Exception) for result in results), results
    check(states, values)
    assert not office.left


def test_a_damaged_block_fails_its_reader_and_nobody_waits(tmp_path: Path) -> None:
    values = full_values({"w": (64, 32)})
    ref = save(tmp_path, values, layout=plain(values, 1))
    data = next(Path(ref.uri).glob("data/*"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    wanted = plain(values, 3)
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(3)]
    began_s = time.monotonic()
    results, _, office = loaded(ref, states, wanted)
    damaged = [result for result in results if isinstance(result, Exception)]
    assert len(damaged) == 1
    assert isinstance(damaged[0], DamagedCheckpointError)
    assert "param of w" in str(damaged[0])
    assert "poisoned" in str(damaged[0])
    assert not office.left, "every message had both its ends"
    assert time.monotonic() - began_s < 30.0


def test_a_damaged_header_fails_its_reader_and_nobody_waits(tmp_path: Path) -> None:
    values = full_values({"w": (64, 32)})
    ref = save(tmp_path, values, layout=plain(values, 1))
    data = next(Path(ref.uri).glob("data/*"))
    content = bytearray(data.read_bytes())
    content[20] ^= 1
    data.write_bytes(content)
    wanted = plain(values, 2)
    states = [rank_state(values, wanted, rank_holder(rank), blank=True) for rank in range(2)]
    results, _, office = loaded(ref, states, wanted)
    assert any(isinstance(result, DamagedCheckpointError) and "its header" in str(result) for result in results)
    assert not office.left


def test_what_is_read_for_others_is_not_verified_by_one_alone(tmp_path: Path) -> None:
    values = full_values({"w": (4, 4)})
    ref = save(tmp_path, values, layout=plain(values, 1))
    state = rank_state(values, plain(values, 2), rank_holder(0), blank=True)
    sharing = Sharing(MemoryExchange(PostOffice(2), 0), plain(values, 2))
    with pytest.raises(InternalError, match="verified by all of them"):
        load(ref, state, sharing=sharing)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=any_shape)
def test_what_a_range_and_a_region_have_in_common(data: st.DataObject, shape: tuple[int, ...]) -> None:
    region = data.draw(regions(shape))
    size = volume(Flat(0, torch.Size(shape).numel()))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    run = Flat(start, stop)
    found = [sorted(elements(shape, piece)) for piece in common(shape, run, region)]
    together = [element for piece in found for element in piece]
    assert together == sorted(elements(shape, region) & elements(shape, run)), "in row-major order, each once"
    assert all(found), "no piece is empty"
    # The same elements in memory of the range, and in memory of the region.
    numbers = torch.arange(size)
    of_run = numbers[start:stop].clone()
    of_region = torch.tensor(sorted(elements(shape, region)), dtype=torch.int64)
    for piece in common(shape, run, region):
        expected = sorted(elements(shape, piece))
        assert region_view(of_run, shape, run, piece).reshape(-1).tolist() == expected
        assert region_view(of_region, shape, region, piece).reshape(-1).tolist() == expected


def test_whole_rows_are_one_range() -> None:
    assert one_run((6, 4), Box((2, 0), (3, 4))) == Flat(8, 20)
    assert one_run((6, 4), Box((2, 1), (3, 2))) == Box((2, 1), (3, 2))
    assert one_run((6, 4), Box((2, 1), (1, 2))) == Flat(9, 11)
    assert one_run((), Box((), ())) == Flat(0, 1)
