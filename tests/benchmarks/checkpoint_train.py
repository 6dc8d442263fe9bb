"""Training beside a save: one rank's steps, and the ways to save that are compared while they go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.tensor import DTensor

from benchmarks.checkpoint_library import LIBRARY, Library
from benchmarks.checkpoint_step import Step
from trainctl.checkpoint.engine import Attempt, CheckpointWriter, attempt_id
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.saving import EntryData, Portion
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import Stower
from trainctl.core.system.faults import FaultPlan

WAYS = ("lazy", "eager", "dcp", "dcp-process", LIBRARY)
IDLE_STEPS = 4
TOKENS = 64
"""Of a step: forward and backward take several times as long as a copy of the state."""


class Saving(Protocol):
    """A save that goes on beside the steps."""

    def fence(self) -> None:
        """Called before the state changes."""
        ...

    @property
    def done(self) -> bool:
        """This rank's part is durable."""
        ...


class _Idle:
    """Nothing is saved for so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def fence(self) -> None:
        """Nothing reads the state."""
        self._left -= 1

    @property
    def done(self) -> bool:
        return self._left <= 1


@dataclass(frozen=True, slots=True)
class _Steps:
    """Seconds of some steps on one rank.

    Attributes:
        each_s: of a step on the average, without the wait at the fence.
        compute_s: of its forward and backward pass.
        fence_s: of the wait, of all together.
        count: how many there were.
    """

    each_s: float
    compute_s: float
    fence_s: float
    count: int


class _Ours:
    def __init__(self, part: BackgroundPart, snapshot: Snapshot | None) -> None:
        self._part, self._snapshot = part, snapshot

    def fence(self) -> None:
        if self._snapshot is not None and not self._snapshot.fence(60.0):
            raise RuntimeError(self._snapshot.reason)

    @property
    def done(self) -> bool:
        outcome = self._part.outcome
        if outcome is not None and outcome.part is None:
            raise RuntimeError(outcome.error)
        return outcome is not None


class _Theirs:
    def __init__(self, future: object) -> None:
        self._future = future

    def fence(self) -> None:
        """Everything was copied before the save came back."""

    @property
    def done(self) -> bool:
        done: bool = self._future.done()  # type: ignore[attr-defined]
        return done


class Training:
    """Steps that read and write the whole state, saved in one way or another.

    Args:
        rank: which one.
        own: the state, as trainctl saves it.
        assigned: this rank's share.
        tensors: the same state, as torch saves it.
        tokens: in a step.
    """

    def __init__(
        self, rank: int, own: LocalState, assigned: Portion, tensors: dict[str, DTensor], *, tokens: int = TOKENS
    ) -> None:
        self._rank, self._own, self._assigned, self._tensors = rank, own, assigned, tensors
        self._step = Step(own, tokens)
        self._pool = HostPool(1)
        self._stower = Stower()
        self._saves = 0
        self._group = dist.new_group(backend="gloo")  # DCP's collectives would meet those of the steps
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._copy = [held.tensor.clone() for held in own.tensors]  # used: what is taken later counts as a save's
        begin: dict[str, Callable[[Path], Saving]] = {
            "lazy": lambda folder: self._begin_ours(folder, lazy=True),
            "eager": lambda folder: self._begin_ours(folder, lazy=False),
            "dcp": lambda folder: self._begin_theirs(folder, AsyncCheckpointerType.THREAD),
            "dcp-process": lambda folder: self._begin_theirs(folder, AsyncCheckpointerType.PROCESS),
            LIBRARY: Library(own).begin,
        }
        self._begin = begin

    def save(self, way: str, folder: Path) -> dict[str, float]:
        """Trains beside one save.

        Returns seconds: ``stall``, ``step`` meanwhile and ``idle`` before, ``compute`` (forward and backward of the
        latter), until it is ``durable``, those that the training ``lost`` in all, and of a plain ``copy``. That is made
        a step before the save: what a copy takes changes twofold from one minute to the next where others use the
        machine's memory, too.
        """
        idle = self._steps(_Idle(IDLE_STEPS))
        dist.barrier()
        copy_s = self._copied()
        self._steps(_Idle(1))
        dist.barrier()
        began_s = time.perf_counter()
        saving = self._begin[way](folder)
        stall_s = time.perf_counter() - began_s
        beside = self._steps(saving)
        stall_s += beside.fence_s
        return {
            "copy": copy_s,
            "stall": stall_s,
            "step": beside.each_s,
            "idle": idle.each_s,
            "compute": idle.compute_s,
            "durable": time.perf_counter() - began_s,
            "lost": stall_s + (beside.each_s - idle.each_s) * beside.count,
        }

    def _steps(self, saving: Saving) -> _Steps:
        """Steps until the save is durable on all ranks, one at least."""
        began_s = time.perf_counter()
        compute_s, fence_s, count = 0.0, 0.0, 0
        open_saves = torch.ones(1)
        while open_saves.item():
            step_s = time.perf_counter()
            self._step.forward_and_backward()
            compute_s += time.perf_counter() - step_s
            open_saves.fill_(not saving.done)
            dist.all_reduce(open_saves)
            at_fence_s = time.perf_counter()
            saving.fence()
            fence_s += time.perf_counter() - at_fence_s
            self._step.update()
            count += 1
        took_s = time.perf_counter() - began_s
        return _Steps((took_s - fence_s) / count, compute_s / count, fence_s, count)

    def _copied(self) -> float:
        """Seconds of a plain copy of all tensors into memory that has been used before."""
        began_s = time.perf_counter()
        for target, held in zip(self._copy, self._own.tensors, strict=True):
            target.copy_(held.tensor)
        return time.perf_counter() - began_s

    def _begin_ours(self, folder: Path, *, lazy: bool) -> Saving:
        self._saves += 1
        number = self._saves
        stowage = self._stower.of(self._own, self._assigned)
        buffer = self._pool.take(stowage.size_bytes, 60.0)
        if buffer is None:
            raise RuntimeError("the save before is still on its way")
        snapshot = Snapshot(self._own, stowage, buffer)
        if not lazy:
            snapshot.copy()
            snapshot.fence(0.0)

        def write(data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
            attempt = Attempt(job="j", step=number, lineage=1, epoch=1, attempt=attempt_id("j", number))
            writer = CheckpointWriter(str(folder), faults=FaultPlan())
            shapes = self._own.shapes()
            return writer.write_part(attempt, writer=self._rank, data=data, shapes=shapes, alive=alive, confirm=confirm)

        source = snapshot if lazy else Given(snapshot.data)
        part = BackgroundPart(source, write, released=lambda: self._pool.give_back(buffer))
        part.start()
        return _Ours(part, snapshot if lazy else None)

    def _begin_theirs(self, folder: Path, way: AsyncCheckpointerType) -> Saving:
        self._saves += 1
        response = state_dict_saver.async_save(
            dict(self._tensors),
            storage_writer=FileSystemWriter(folder / str(self._saves), thread_count=1),
            async_checkpointer_type=way,
            async_stager=self._stager,
            process_group=self._group,
        )
        return _Theirs(response)
