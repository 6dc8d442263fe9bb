"""Who copies a model's state beside its training on a device: trainctl's snapshots, and torch's asynchronous saves.

Nothing is written anywhere, on all sides: what is compared is the way from the device to the host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import torch
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, AsyncSaveResponse
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult

from trainctl.checkpoint.engine import assign
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder, replicated
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.records import PartReport, StoredFile
from trainctl.checkpoint.monitor import COPY
from trainctl.checkpoint.save.saving import EntryData
from trainctl.checkpoint.snapshot.background import BackgroundPart
from trainctl.checkpoint.snapshot.copier import cuda_devices
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import Stower

OURS, THREAD, PROCESS = "trainctl", "dcp-thread", "dcp-process"
SIDES = (OURS, THREAD, PROCESS)
IDLE = "idle"
FENCE_S = 60.0


class Side(Protocol):
    """Copies the state after each step."""

    def begin(self) -> None:
        """Called after a step's update."""
        ...

    def fence(self) -> None:
        """Called before the next one."""
        ...

    def end(self) -> None:
        """Waits for what is on its way."""
        ...


class Idle:
    """Copies nothing."""

    def begin(self) -> None: ...

    def fence(self) -> None: ...

    def end(self) -> None: ...


def digests(tensors: dict[StateKey, torch.Tensor]) -> dict[StateKey, int]:
    """Of their bits; the same on all devices."""
    return {
        key: int(tensor.reshape(-1).view(torch.int32).sum(dtype=torch.int64))
        for key, tensor in tensors.items()
        if tensor.numel()
    }


class Ours:
    """Implements ``Side`` with snapshots as a session makes them, of which nothing is written.

    Args:
        state: what is copied.

    Attributes:
        checks: whether each copy is compared with the state at its moment, which takes time.
        copies_s: how long each copy took, beginning with the step before it.
    """

    def __init__(self, state: LocalState) -> None:
        self._state = state
        layout = replicated(state.shapes(), [rank_holder(0)])
        self._assigned = assign(layout)[rank_holder(0)]
        self._pool = HostPool(1)
        self._stower = Stower()
        self._snapshot: Snapshot | None = None
        self._part: BackgroundPart | None = None
        self._expected: dict[StateKey, int] | None = None
        self.checks = False
        self.copies_s: list[float] = []

    @property
    def host_bytes(self) -> int:
        """Memory for the copies."""
        return self._pool.held_bytes

    def begin(self) -> None:
        """The copy before has to be whole, since there is memory for one."""
        self.end()
        pinned = bool(cuda_devices(self._state))
        stowage = self._stower.of(self._state, self._assigned)
        buffer = self._pool.take(stowage.size_bytes, FENCE_S, pinned=pinned)
        if buffer is None:
            raise RuntimeError("the copy before still occupies the memory")
        if self.checks:
            self._expected = digests({held.key: held.tensor for held in self._state.tensors})
        taken = buffer
        self._snapshot = Snapshot(self._state, stowage, buffer)
        self._part = BackgroundPart(
            self._snapshot, self._write, released=lambda: self._pool.give_back(taken), retry_after_s=()
        )
        self._part.start()

    def fence(self) -> None:
        """Fails where the copy is dropped: every one of them counts."""
        if self._snapshot is not None and not self._snapshot.fence(FENCE_S):
            raise RuntimeError(self._snapshot.reason)

    def end(self) -> None:
        """Until the copy is whole and compared."""
        if self._part is None:
            return
        self.fence()
        self._part.wait(FENCE_S)
        outcome = self._part.outcome
        if outcome is None or outcome.part is None:
            raise RuntimeError(outcome.error if outcome is not None else "the copy is not over yet")
        self.copies_s.append(outcome.stages[COPY])
        self._part = self._snapshot = None

    def _write(self, data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        confirm()
        if self._expected is not None:
            found = digests({entry.key: copy for entry, copy in data.items()})
            if found != self._expected:
                raise RuntimeError("a copy is not what the state was at its moment")
            self._expected = None
        nowhere = StoredFile(path="", size_bytes=0, sha256="")
        return PartReport(writer=0, attempt="", manifest=nowhere, files=(), data_bytes=0)


class Nowhere(StorageWriter):
    """Writes nothing; as a class of a module, it can go to the process that saves."""

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **named: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        done: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        done.set_result([])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None: ...

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


class Theirs:
    """Implements ``Side`` with ``torch.distributed.checkpoint.async_save`` and one stager for all saves.

    On a CUDA device the stager has all that torch offers: pinned memory, a stream and a thread of its own; and shared
    memory where a process saves.

    Args:
        state: what is saved.
        way: in a thread or in a process.
    """

    def __init__(self, state: LocalState, way: AsyncCheckpointerType) -> None:
        self._tensors = {f"{held.key.kind}.{held.key.fqn}": held.tensor for held in state.tensors}
        self._way = way
        fast = bool(cuda_devices(state))
        shared = fast and way == AsyncCheckpointerType.PROCESS
        self._stager = DefaultStager(StagingOptions(fast, shared, fast, fast))
        self._staged: Future[None] | None = None
        self._saved: Future[Any] | None = None

    def begin(self) -> None:
        """The save before has to be over: the stager's memory is used again."""
        self.end()
        answer = state_dict_saver.async_save(
            dict(self._tensors),
            storage_writer=Nowhere(),
            async_checkpointer_type=self._way,
            async_stager=self._stager,
        )
        if isinstance(answer, AsyncSaveResponse):
            self._staged, self._saved = answer.staging_completion, answer.upload_completion
        else:
            self._staged, self._saved = None, answer

    def fence(self) -> None:
        """Until the copy is whole, where it is made beside the training."""
        if self._staged is not None:
            self._staged.result(FENCE_S)

    def end(self) -> None:
        """Until nobody reads the copy any more."""
        if self._saved is not None:
            self._saved.result(FENCE_S)


def side_of(name: str, state: LocalState) -> Side:
    """By its name."""
    if name == IDLE:
        return Idle()
    if name == OURS:
        return Ours(state)
    return Theirs(state, AsyncCheckpointerType.PROCESS if name == PROCESS else AsyncCheckpointerType.THREAD)


def to_host_bytes_per_s(device: torch.device, size_bytes: int, turns: int = 5) -> float:
    """The limit: one copy after the other into pinned memory that was used before, nothing beside it; the best."""
    source = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros(size_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    best_s = float("inf")
    for _ in range(turns + 1):
        wait_for(device)
        began_s = time.perf_counter()
        target.copy_(source, non_blocking=True)
        wait_for(device)
        best_s = min(best_s, time.perf_counter() - began_s)
    return size_bytes / best_s


def wait_for(device: torch.device) -> None:
    """Until the calling thread's queue is done; those of copies go on."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
