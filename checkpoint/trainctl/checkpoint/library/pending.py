"""One save on its way beside the training: copied, written and completed by a thread of each rank."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.library.group_save import GroupSave
from trainctl.checkpoint.library.ranks import Ranks, told
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.saving import EntryData
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.snapshot.copier import cuda_devices
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import Stower
from trainctl.core.errors import CheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef

_ROOM_S = 10.0
_WAIT_S = 3600.0
_NO_COPY = "its copy of the state could not be made"


class PendingSave:
    """A handle; ``Checkpointer.async_save`` gives it. All ranks have one for the same save, and hear the same of it.

    Args:
        save: what all ranks agreed on.
        beside: the ranks, in a group that no other thread uses.
        pool: memory for the copy.
        stower: finds out what of the state goes where in it.
        lazy: whether the copy is made beside the training, up to the next fence.
        fence_s: how long a fence waits for it.
        retry_after_s: waits before a write that failed is tried again.
        before: the save before: they are completed in order.

    Attributes:
        step: of the state.
        attempt: name of the save, the same on all ranks.
        ref: the checkpoint, once it is complete.
        told: whether somebody was told how it ended.
    """

    def __init__(
        self,
        save: GroupSave,
        beside: Ranks,
        pool: HostPool,
        stower: Stower,
        *,
        lazy: bool,
        fence_s: float,
        retry_after_s: Sequence[float],
        before: PendingSave | None,
    ) -> None:
        self.step = save.attempt.step
        self.attempt = save.attempt.attempt
        self.told = False
        self.ref: CheckpointRef | None = None
        self._save = save
        self._beside = beside
        self._fence_s = fence_s
        self._failure = ""
        self._source, self._snapshot, released = _source(save, pool, stower, lazy=lazy)
        self._part: BackgroundPart = BackgroundPart(
            self._source,
            self._write,
            share=self._complete,
            retry_after_s=retry_after_s,
            before=before._part if before is not None else None,
            released=released,
        )
        self._part.start()

    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._part.outcome is not None

    def fence(self) -> bool:
        """Called before the state changes: on return it may. Whether this save has a whole copy, or will."""
        return self._snapshot is None or self._snapshot.fence(self._fence_s)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it is over, after at most so long. The state must not change meanwhile: it passes the fence."""
        self.fence()
        return self._part.wait(_WAIT_S if timeout_s is None else timeout_s)

    def result(self, timeout_s: float | None = None) -> CheckpointRef:
        """The checkpoint, when it is complete.

        Raises:
            CheckpointError: a rank failed, or is gone: there is no checkpoint; says which and why.
            TimeoutError: it is not over yet.
        """
        if not self.wait(timeout_s):
            raise TimeoutError(f"the checkpoint of step {self.step} is not complete yet")
        self.told = True
        if self.ref is None:
            raise CheckpointError(self.failure, hint="training can go on; the next save starts a new one")
        return self.ref

    @property
    def failure(self) -> str:
        """Why there is no checkpoint; empty if there is one, or it is not known yet."""
        outcome = self._part.outcome
        return "" if outcome is None or self.ref is not None else self._failure or outcome.error

    def _write(self, data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        try:
            return self._save.write(self._beside.rank, data, alive=alive, confirm=confirm)
        except (TrainctlError, OSError) as error:
            self._failure = told(error)
            raise

    def _complete(self, part: PartReport | None, *, alive: Callable[[], None], check: Callable[[], None]) -> None:
        """Every rank comes here, whatever became of its part: so nobody waits for one that failed."""
        error = "" if part is not None else self._source.reason or self._failure or _NO_COPY
        try:
            self.ref = self._save.complete(self._beside, part, error)
        except TrainctlError as failure:
            # Of several ranks it says what each was told; of one it is the error itself.
            self._failure = told(failure) if self._beside.size == 1 else str(failure)
            raise
        except RuntimeError as failure:
            # Of torch: the connection to a rank broke, or nothing came from it for too long.
            with contextlib.suppress(RuntimeError, ValueError):  # so that ranks that wait for this one hear it, too
                self._beside.leave()
            text = str(failure).split("\n", 1)[0]
            self._failure = f"saving step {self.step} to {self._save.target.uri}: a rank is gone or silent: {text}"
            raise CheckpointError(self._failure) from failure


def _source(
    save: GroupSave, pool: HostPool, stower: Stower, *, lazy: bool
) -> tuple[Snapshot | Given, Snapshot | None, Callable[[], None]]:
    """Where the data comes from, what has to pass a fence, and what lets go of the memory. Never fails alone.

    A rank that raised here would leave the others waiting for it: it says so when all parts come together.
    """
    buffer = None
    try:
        pinned = bool(cuda_devices(save.state))
        stowage = stower.of(save.state, save.assigned)
        buffer = pool.take(stowage.size_bytes, _ROOM_S, pinned=pinned)
        if buffer is None:
            return Given({}, "the copies of earlier saves still occupy the memory", "no_answer"), None, nothing
        snapshot = Snapshot(save.state, stowage, buffer)
        if not lazy:
            snapshot.copy()
            snapshot.fence(0.0)
    except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
        if buffer is not None:
            pool.give_back(buffer)
        return Given({}, f"no copy of the state could be made: {error}", "no_memory"), None, nothing
    taken = buffer

    def released() -> None:
        pool.give_back(taken)

    if snapshot.settled(0.0):
        return Given(snapshot.data, snapshot.reason, snapshot.cause), None, released
    return snapshot, snapshot, released
