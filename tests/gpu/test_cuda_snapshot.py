"""Snapshots of state on a CUDA device: of their moment, in whatever stream training runs; and the memory they go to.

Without it a snapshot on a device could mix two steps, which no test on CPUs would see.

The order of the calls is tested without a device (``unit/checkpoint/snapshot/test_copier.py``); here CUDA does
what they mean.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder, replicated
from trainctl.checkpoint.layout.region import whole
from trainctl.checkpoint.library import Checkpointer, load
from trainctl.checkpoint.live.state import BUFFER, LocalState, StateTensor
from trainctl.checkpoint.save.saving import assign
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import stow
from unit.checkpoint.ranks import key
from waiting import PATIENCE_S

ELEMENTS = 1 << 24
LATE_CYCLES = 200_000_000
"""The device stands still for about a tenth of a second: long after the host has gone on."""


def state_on_device() -> LocalState:
    """64 MiB of a weight, as much of its moment, and a buffer; and a count on the host, as torch's AdamW has."""
    values = {
        key("w"): torch.zeros(ELEMENTS, device="cuda"),
        key("w", kind="exp_avg"): torch.zeros(64, ELEMENTS // 64, device="cuda").t(),
        key("mean", kind=BUFFER): torch.zeros(5, device="cuda"),
        key("w", kind="step"): torch.zeros(()),
    }
    return LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in values.items()))


def be_late() -> None:
    torch.cuda._sleep(LATE_CYCLES)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("stream", ["default", "own"])
def test_a_snapshot_of_every_step_while_the_device_is_late(stream: str) -> None:
    state = state_on_device()
    assigned = assign(replicated(state.shapes(), [rank_holder(0)]))[rank_holder(0)]
    stowage = stow(state, assigned)
    pool = HostPool(1)
    torch.cuda.synchronize()
    own = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    training = own if stream == "own" else torch.cuda.current_stream()
    with torch.cuda.stream(training):
        for step in range(1, 6):
            be_late()
            for held in state.tensors:
                held.tensor.fill_(step)
            buffer = pool.take(stowage.size_bytes, pinned=True)
            assert buffer is not None
            assert buffer.bytes.is_pinned()
            snapshot = Snapshot(state, stowage, buffer)
            assert not training.query(), "nobody waited for the device"
            copying = threading.Thread(target=snapshot.copy)
            copying.start()
            (running,) = [held.tensor for held in state.tensors if held.key.kind == BUFFER]
            running.fill_(-1.0)  # as a forward pass does
            be_late()
            assert snapshot.fence(PATIENCE_S), snapshot.reason
            for held in state.tensors:
                held.tensor.fill_(-1.0)
            copying.join(PATIENCE_S)
            found: dict[StateKey, torch.Tensor] = {entry.key: copy for entry, copy in snapshot.data.items()}
            assert {of: (copy.min().item(), copy.max().item()) for of, copy in found.items()} == {
                held.key: (step, step) for held in state.tensors
            }
            pool.give_back(buffer)


def test_memory_that_is_let_go_of_is_pinned_no_more() -> None:
    pool = HostPool(1)
    for size_bytes in (1 << 20, 1 << 22, 1 << 24) * 20:
        buffer = pool.take(size_bytes, pinned=True)
        assert buffer is not None
        buffer.bytes[:size_bytes].copy_(torch.ones(size_bytes, dtype=torch.uint8, device="cuda"), non_blocking=True)
        torch.cuda.synchronize()
        assert buffer.bytes[:size_bytes].all()
        pool.give_back(buffer)


def test_a_library_save_beside_training_on_a_device(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(1024, 4096), nn.BatchNorm1d(4096), nn.Linear(4096, 1024)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def train() -> None:
        optimizer.zero_grad()
        model(torch.randn(256, 1024, device="cuda")).square().mean().backward()
        optimizer.step()

    with Checkpointer(str(tmp_path)) as checkpointer:
        for step in range(1, 4):
            train()
            expected = {name: value.clone() for name, value in model.state_dict().items()}
            pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=step)
            train()
            saved = pending.result()
            again = nn.Sequential(nn.Linear(1024, 4096), nn.BatchNorm1d(4096), nn.Linear(4096, 1024)).cuda()
            load(saved.uri, model=again)
            for name, value in again.state_dict().items():
                assert torch.equal(value, expected[name]), f"{name} of step {step}"
