"""Snapshots are the state of one moment or nothing, whoever is late, in a hurry, or does what is forbidden.

Without it a snapshot could mix two steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.engine import CheckpointWriter, load
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.live.tensors import dtype_of
from trainctl.checkpoint.save.saving import assign
from trainctl.checkpoint.snapshot.host_pool import HostBuffer, HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import stow
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.ranks import attempt, full_values, key, plain, rank_state, same_bits
from waiting import PATIENCE_S


class SlowMemory:
    """A buffer of which the copy of each chunk waits until it is allowed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.allowed = threading.Event(), threading.Event()
        plainly = Snapshot._copy_tensor

        def slowly(snapshot: Snapshot, *what: Any) -> bool:
            self.begun.set()
            assert self.allowed.wait(PATIENCE_S)
            return plainly(snapshot, *what)

        monkeypatch.setattr(Snapshot, "_copy_tensor", slowly)


def begun(values: Mapping[StateKey, torch.Tensor]) -> tuple[Snapshot, LocalState, HostBuffer]:
    layout = plain(values, 1)
    state = rank_state(values, layout, rank_holder(0))
    assigned = assign(layout)[rank_holder(0)]
    stowage = stow(state, assigned)
    buffer = HostPool(1).take(stowage.size_bytes)
    assert buffer is not None
    return Snapshot(state, stowage, buffer), state, buffer


@pytest.mark.parametrize("dtype", ["BOOL", "F8_E4M3", "I16", "BF16", "F32", "F64", "C64"])
def test_it_keeps_the_values_of_its_moment(tmp_path: Path, dtype: str) -> None:
    values = full_values(dtype=dtype)
    layout = plain(values, 1)
    state = rank_state(values, layout, rank_holder(0))
    assigned = assign(layout)[rank_holder(0)]
    stowage = stow(state, assigned, max_entry_bytes=24)
    buffer = HostPool(1).take(stowage.size_bytes)
    assert buffer is not None
    snapshot = Snapshot(state, stowage, buffer)
    assert not snapshot.whole
    snapshot.copy()
    assert snapshot.fence(0.0)
    for held in state.tensors:
        held.tensor.zero_()
    writer, of = CheckpointWriter(str(tmp_path), faults=FaultPlan()), attempt()
    part = writer.write_part(of, writer=0, data=snapshot.data, shapes=layout.shapes)
    ref = writer.seal(of, state=state, parts=[part], parent=None)
    load(ref, state)
    assert all(same_bits(held.tensor, values[held.key]) for held in state.tensors)


def test_the_fence_waits_for_a_copy_that_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowMemory(monkeypatch)
    snapshot, state, _ = begun({key("w"): torch.arange(6.0)})
    copying = threading.Thread(target=snapshot.copy)
    copying.start()
    assert slow.begun.wait(PATIENCE_S)
    threading.Timer(0.05, slow.allowed.set).start()
    assert snapshot.fence(PATIENCE_S)
    state.tensors[0].tensor.zero_()
    (copy,) = snapshot.data.values()
    assert torch.equal(copy, torch.arange(6.0))
    copying.join(PATIENCE_S)


def test_a_late_copy_is_dropped_and_nothing_is_touched_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowMemory(monkeypatch)
    snapshot, state, buffer = begun({key("v"): torch.ones(3), key("w"): torch.ones(3)})
    copying = threading.Thread(target=snapshot.copy)
    copying.start()
    assert slow.begun.wait(PATIENCE_S)

    def allow_when_nobody_waits() -> None:
        while snapshot._wanted:
            time.sleep(0.001)
        slow.allowed.set()

    threading.Thread(target=allow_when_nobody_waits).start()
    assert not snapshot.fence(0.01)
    assert "0.01 s later the copy was not whole" in snapshot.reason
    state.tensors[0].tensor.fill_(7)
    buffer.bytes.zero_()
    copying.join(PATIENCE_S)
    assert not buffer.bytes.any()
    assert not snapshot.whole
    assert not snapshot.fence(1.0), "it stays so"


@pytest.mark.parametrize("copied_before", [True, False])
def test_whoever_writes_without_passing_the_fence_is_found_out(copied_before: bool) -> None:
    """Also where the copy happens to be right: that cannot be known."""
    snapshot, state, _ = begun({key("v"): torch.ones(3), key("w"): torch.ones(3)})
    if copied_before:
        snapshot.copy()
    state.tensors[1].tensor.add_(1)
    if not copied_before:
        snapshot.copy()
    assert not snapshot.fence(1.0)
    assert "param of w (F32, island-0, step 1) was changed before the snapshot's fence was passed" in snapshot.reason


def test_a_write_through_a_view_is_found_out() -> None:
    snapshot, state, _ = begun({key("w"): torch.ones(4, 4)})
    state.tensors[0].tensor[1].add_(1)
    snapshot.copy()
    assert not snapshot.fence(1.0)


@pytest.mark.parametrize("copied_before", [True, False])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "F64", "C64"])
def test_a_write_that_torch_does_not_count_is_found_out(dtype: str, copied_before: bool) -> None:
    values = {key(name, dtype=dtype): torch.zeros(5, 3, dtype=dtype_of(dtype)) for name in "abc"}
    snapshot, state, _ = begun(values)
    if copied_before:
        snapshot.copy()
    state.tensors[1].tensor.data.fill_(1)
    if not copied_before:
        snapshot.copy()
    assert not snapshot.fence(1.0)
    assert snapshot.cause == "changed_state"
    assert f"{state.tensors[1].key} was changed" in snapshot.reason
    assert ".data" in snapshot.reason


def test_what_is_no_number_is_not_taken_for_a_change() -> None:
    snapshot, state, _ = begun({key("w"): torch.full((3,), torch.nan), key("empty"): torch.zeros(0, 2)})
    snapshot.copy()
    assert snapshot.fence(1.0)
    assert len(state.tensors) == 2


def test_of_very_many_tensors_some_are_looked_at() -> None:
    snapshot, state, _ = begun({key(f"w{number:04}"): torch.zeros(1) for number in range(1000)})
    snapshot.copy()
    for live in state.tensors:
        live.tensor.numpy()[:] = 1
    assert not snapshot.fence(1.0)


def test_a_copy_that_fails_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Snapshot, "_copy_tensor", broken)
    snapshot, _, _ = begun({key("w"): torch.ones(3)})
    with pytest.raises(RuntimeError):
        snapshot.copy()
    assert not snapshot.fence(PATIENCE_S)
    assert snapshot.reason == "copying failed: device lost"


def test_a_copy_that_was_never_begun_holds_up_nobody_and_does_not_begin_later() -> None:
    snapshot, _, buffer = begun({key("w"): torch.ones(3)})
    assert not snapshot.fence(0.01)
    snapshot.copy()
    assert not buffer.bytes.any()


def test_live_tensors_that_are_not_contiguous() -> None:
    transposed = torch.arange(12.0).reshape(4, 3).t()
    snapshot, _, _ = begun({key("w"): transposed})
    snapshot.copy()
    assert snapshot.fence(0.0)
    (copy,) = snapshot.data.values()
    assert torch.equal(copy, transposed.reshape(-1))


class TestPool:
    def test_memory_is_used_again_and_there_is_no_more_of_it_than_allowed(self) -> None:
        made: list[int] = []

        def memory(size_bytes: int) -> torch.Tensor:
            made.append(size_bytes)
            return torch.zeros(size_bytes, dtype=torch.uint8)

        pool = HostPool(2, memory)
        first, second = pool.take(100), pool.take(200)
        assert first is not None
        assert second is not None
        assert pool.take(1) is None
        pool.give_back(second)
        pool.give_back(second)
        assert pool.size_bytes == 200
        assert pool.take(150) is second
        pool.give_back(first)
        again = pool.take(100)
        assert again is first
        assert made == [100, 200]

    def test_free_buffers_of_several_sizes(self) -> None:
        pool = HostPool(3)
        buffers = [pool.take(size) for size in (10, 30, 20)]
        for buffer in buffers:
            assert buffer is not None
            pool.give_back(buffer)
        assert pool.take(15) is buffers[2]
        assert pool.take(15) is buffers[1]
        assert pool.take(5) is buffers[0]

    def test_a_buffer_that_has_become_too_small_is_replaced(self) -> None:
        pool = HostPool(1)
        small = pool.take(10)
        assert small is not None
        pool.give_back(small)
        large = pool.take(1000)
        assert large is not None
        assert large.bytes.numel() == 1000
        assert pool.size_bytes == 0
        pool.give_back(large)
        assert pool.size_bytes == 1000
