"""Training beside a save: one rank's steps, and the ways to save that are compared while they go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.tensor import DTensor

from trainctl.checkpoint.engine import Attempt, CheckpointWriter, attempt_id
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.saving import EntryData, Runs
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot, needed_bytes
from trainctl.checkpoint.state import LocalState
from trainctl.core.system.faults import FaultPlan

WAYS = ("lazy", "eager", "dcp", "dcp-process")
IDLE_STEPS = 30
_WIDTH, _ROWS = 512, 256


class Saving(Protocol):
    """A save that goes on beside the steps."""

    def fence(self) -> None:
        """Called before the state changes."""
        ...

    @property
    def done(self) -> bool:
        """This rank's part is durable."""
        ...


@dataclass(frozen=True, slots=True)
class _Idle:
    done = True

    def fence(self) -> None:
        """Nothing reads the state."""


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
    """Steps of about ten milliseconds whose optimizer touches the state, saved in one way or another.

    Args:
        rank: which one.
        own: the state, as trainctl saves it.
        assigned: this rank's share.
        tensors: the same state, as torch saves it.
    """

    def __init__(self, rank: int, own: LocalState, assigned: Runs, tensors: dict[str, DTensor]) -> None:
        self._rank, self._own, self._assigned, self._tensors = rank, own, assigned, tensors
        self._model = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(6)))
        self._rows = torch.randn(_ROWS, _WIDTH)
        self._pool = HostPool(1)
        self._saves = 0
        self._group = dist.new_group(backend="gloo")  # DCP's collectives would meet those of the steps
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._copy = [torch.empty_like(held.tensor) for held in own.tensors]
        begin: dict[str, Callable[[Path], Saving]] = {
            "lazy": lambda folder: self._begin_ours(folder, lazy=True),
            "eager": lambda folder: self._begin_ours(folder, lazy=False),
            "dcp": lambda folder: self._begin_theirs(folder, AsyncCheckpointerType.THREAD),
            "dcp-process": lambda folder: self._begin_theirs(folder, AsyncCheckpointerType.PROCESS),
        }
        self._begin = begin

    def save(self, way: str, folder: Path) -> dict[str, float]:
        """Trains beside one save: seconds of the stall, of a step meanwhile, of one before, and until it is durable."""
        idle_s = self._steps(_Idle(), IDLE_STEPS)[0]
        began_s = time.perf_counter()
        saving = self._begin[way](folder)
        stall_s = time.perf_counter() - began_s
        step_s, fence_s = self._steps(saving, 1)
        return {
            "stall": stall_s + fence_s,
            "step": step_s,
            "idle": idle_s,
            "durable": time.perf_counter() - began_s,
        }

    def copy(self) -> float:
        """Seconds of a plain copy of all tensors into memory that has been used before."""
        began_s = time.perf_counter()
        for target, held in zip(self._copy, self._own.tensors, strict=True):
            target.copy_(held.tensor)
        return time.perf_counter() - began_s

    def _steps(self, saving: Saving, at_least: int) -> tuple[float, float]:
        """Steps until the save is durable on all ranks: seconds of one without waiting at the fence, and of those."""
        began_s = time.perf_counter()
        fence_s, count = 0.0, 0
        open_saves = torch.ones(1)
        while count < at_least or open_saves.item():
            self._model(self._rows).square().mean().backward()
            open_saves.fill_(not saving.done)
            dist.all_reduce(open_saves)
            at_fence_s = time.perf_counter()
            saving.fence()
            fence_s += time.perf_counter() - at_fence_s
            self._own.tensors[count % len(self._own.tensors)].tensor.add_(1e-3)
            count += 1
        return (time.perf_counter() - began_s - fence_s) / count, fence_s

    def _begin_ours(self, folder: Path, *, lazy: bool) -> Saving:
        self._saves += 1
        number = self._saves
        buffer = self._pool.take(needed_bytes(self._own, self._assigned), 60.0)
        if buffer is None:
            raise RuntimeError("the save before is still on its way")
        snapshot = Snapshot(self._own, self._assigned, buffer)
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
