"""Without it a joiner could get state twice, from one overloaded holder, or damaged without anybody noticing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.layout.copy_plan import Transfer
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.region import Box, Flat, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import dtype_name
from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.parallel.recovery.membership import rank_of
from trainctl.parallel.recovery.transfer import Message, by_rank, joiners, messages, plan_copies
from trainctl.parallel.replica.digest import tensors_digest
from unit.generation_records import generation_record, member


def record(size: int, holders: tuple[int, ...]) -> GenerationRecord:
    members = tuple(member(rank, slot=10 + rank, incarnation=20 + rank) for rank in range(size))
    return generation_record(3, members=members, rung=Rung.PEER, holders=holders)


def state(shapes: list[tuple[int, ...]]) -> LocalState:
    dtypes = [torch.float32, torch.float64]
    tensors = []
    for index, shape in enumerate(shapes):
        tensor = torch.randn(shape, dtype=dtypes[index % 2])
        key = StateKey(f"p{index}", "param", dtype_name(tensor.dtype), "island-0", StateVersion(1, 4))
        tensors.append(StateTensor(key, shape, whole(shape), tensor))
    return LocalState(tuple(tensors))


def copies(local: LocalState, size: int) -> Layout:
    return replicated(local.shapes(), map(rank_holder, range(size)))


shapes = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), min_size=1, max_size=6)


def planned(
    rec: GenerationRecord, layout: Layout, message_bytes: int = 1 << 20
) -> dict[tuple[int, int], list[Message]]:
    """By source and destination; each end finds the same."""
    plan = plan_copies(rec, layout)
    sent = {
        (source, destination): list(messages(transfers, message_bytes))
        for source in range(rec.world_size)
        for destination, transfers in by_rank((t.dst_holder, t) for t in plan.out_of(rank_holder(source))).items()
    }
    received = {
        (source, destination): list(messages(transfers, message_bytes))
        for destination in range(rec.world_size)
        for source, transfers in by_rank((t.src_holder, t) for t in plan.into(rank_holder(destination))).items()
    }
    assert sent == received
    return sent


def elements(transfer: Transfer) -> range:
    assert isinstance(transfer.region, Flat)
    return range(*transfer.region)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(2, 5), st.data(), st.integers(8, 300))
def test_every_joiner_gets_every_element_once(
    shape_list: list[tuple[int, ...]], size: int, data: st.DataObject, message_bytes: int
) -> None:
    holders = tuple(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))))
    rec, local = record(size, holders), state(shape_list)
    got: Counter[tuple[int, str, int]] = Counter()
    for (source, destination), sent in planned(rec, copies(local, size), message_bytes).items():
        assert source in holders
        for message in sent:
            assert sum(part.size_bytes for part in message) <= max(message_bytes, 8)
            for part in message:
                assert (part.src_holder, part.dst_holder) == (rank_holder(source), rank_holder(destination))
                got.update((destination, part.dst_key.fqn, i) for i in elements(part))
    want = {(r, t.key.fqn, i) for r in joiners(rec) for t in local.tensors for i in range(t.tensor.numel())}
    assert set(got) == want
    assert set(got.values()) == {1}


def test_the_load_is_spread_over_the_holders() -> None:
    plan = plan_copies(record(4, (0, 1, 3)), copies(state([(3000,), (3000,), (3000,)]), 4))
    sent = Counter[str]()
    for transfer in plan.into(rank_holder(2)):
        sent[transfer.src_holder] += transfer.size_bytes
    assert max(sent.values()) - min(sent.values()) <= 16_000
    assert set(sent) == {"rank:0", "rank:1", "rank:3"}


KEY = StateKey("w", "param", "F32", "island-0", StateVersion(1, 4))
HALVES = (Box((0, 0), (2, 3)), Box((2, 0), (2, 3)))


def halves(size: int) -> Layout:
    """Even ranks have the upper rows of a tensor, odd ones the lower."""
    return Layout({KEY: (4, 3)}, {rank_holder(rank): {KEY: (HALVES[rank % 2],)} for rank in range(size)})


def test_who_holds_a_part_gets_that_part_from_those_who_have_it() -> None:
    found = planned(record(4, (0, 1)), halves(4))
    assert {ends: [[part.region for part in message] for message in sent] for ends, sent in found.items()} == {
        (0, 2): [[Flat(0, 6)]],
        (1, 3): [[Flat(6, 12)]],
    }


def test_a_part_that_nobody_has_any_more_is_refused() -> None:
    with pytest.raises(InternalError, match="generation 3: no holder for"):
        plan_copies(record(4, (0, 2)), halves(4))


def test_rank_is_found_by_slot_and_life() -> None:
    assert rank_of(record(3, (0,)), slot=12, incarnation=22) == 2
    with pytest.raises(Exception, match="no member of generation 3"):
        rank_of(record(3, (0,)), slot=12, incarnation=23)


def test_digest_sees_values_places_and_odd_sizes() -> None:
    base = [torch.arange(70_001, dtype=torch.float32), torch.arange(5, dtype=torch.uint8)]
    first = tensors_digest(base)
    assert first == tensors_digest([tensor.clone() for tensor in base])
    swapped = base[0].clone()
    swapped[[3, 69_000]] = swapped[[69_000, 3]]
    last = base[1].clone()
    last[4] += 1
    others = [[swapped, base[1]], [base[0], last], [base[1], base[0]], [base[0]], [base[0][1:], base[1]]]
    assert len({first, *map(tensors_digest, others)}) == 6
