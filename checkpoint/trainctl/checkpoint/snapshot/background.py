"""One rank's part of a save, on its way to storage beside the training: copied, written, and only then counted."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.memory.node_memory import NoRoomError
from trainctl.checkpoint.monitor import COPY, WRITE
from trainctl.checkpoint.save.saving import EntryData
from trainctl.checkpoint.snapshot.pace import Pace, first_rest_s
from trainctl.checkpoint.stopwatch import Stopwatch, timed
from trainctl.checkpoint.storage.descriptors import beside_training
from trainctl.checkpoint.storage.errors import LASTING
from trainctl.core.errors import CheckpointError, TrainctlError
from trainctl.core.records.part import NO_ROOM

T = TypeVar("T")
_LOG = logging.getLogger("trainctl.checkpoint")
RETRY_AFTER_S = (0.5, 2.0)
"""Waits before a write that failed is tried again."""
_SETTLING = ""
"""What is waited for then is nobody's stage."""
_NICE = 10
"""The training thread has the processor first while the part is written."""


class WritePart(Protocol):
    """Writes one rank's data. Leaves nothing behind where it, or one of its arguments, fails."""

    def __call__(self, data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        """Calls ``alive`` for every block, and ``confirm`` once all is written, before it counts."""
        ...


class SharePart(Protocol):
    """What follows when a part is written, or has failed: others wait for it either way."""

    def __call__(self, part: PartReport | None, *, alive: Callable[[], None], check: Callable[[], None]) -> None:
        """Calls ``alive`` when something moved and ``check`` every few milliseconds; what ``check`` raises ends it."""
        ...


def keep_to_oneself(part: PartReport | None, *, alive: Callable[[], None], check: Callable[[], None]) -> None:
    """Nobody waits for the part."""


class Source(Protocol):
    """Where a part's data comes from: a ``Snapshot``, or ``Given``."""

    @property
    def data(self) -> EntryData:
        """What to write, once ``copy`` has come back."""
        ...

    @property
    def reason(self) -> str:
        """Why the data must not be used; empty as long as it may be."""
        ...

    @property
    def cause(self) -> str:
        """The reason in one word of ``monitor.CAUSES``."""
        ...

    def copy(self) -> None:
        """Puts the data where it stays as it is; called once, on the part's thread."""
        ...

    def settled(self, within_s: float) -> bool:
        """Whether it is known for good if the data is what it should be, after at most so long."""
        ...


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """How the saving of one part ended.

    Attributes:
        part: what was written; None if it failed.
        error: why it failed.
        stages: seconds of ``copy``, ``checksum``, ``write`` and ``sync``.
        cause: of a failure, one word of ``monitor.CAUSES``, or ``NO_ROOM``.
    """

    part: PartReport | None
    error: str
    stages: Mapping[str, float]
    cause: str = ""


class Given:
    """Data that needs no copy: whoever gives it leaves it alone until the part is written. Or a reason why not."""

    def __init__(self, data: EntryData, reason: str = "", cause: str = "") -> None:
        self.data = data
        self.reason = reason
        self.cause = cause

    def copy(self) -> None:
        """It is where it has to be."""

    def settled(self, within_s: float) -> bool:
        """It never was in doubt."""
        return True


class _Cancelled(BaseException):
    """Nobody wants the part any more."""


class BackgroundPart:
    """Copies and writes one part in a thread of its own, after ``before`` has been written.

    Args:
        source: what to write; it counts once it is settled.
        write: writes it.
        share: called once, after the last try to write it; the part counts when that has come back.
        retry_after_s: waits before a write that failed is tried again.
        before: the part of the save before: a rank writes one at a time, in order.
        beside_training: training goes on meanwhile, so that the thread holds back; else somebody waits for the part.
        changed: called when it is over.
        released: called on the thread when it reads the data no more, however long after that.
    """

    def __init__(
        self,
        source: Source,
        write: WritePart,
        *,
        share: SharePart = keep_to_oneself,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
        before: BackgroundPart | None = None,
        beside_training: bool = True,
        changed: Callable[[], None] = nothing,
        released: Callable[[], None] = nothing,
    ) -> None:
        self.source = source
        self._write = write
        self._share = share
        self._retry_after_s = retry_after_s
        self._before = before
        self._beside_training = beside_training
        self._changed = changed
        self._released = released
        self._over = threading.Event()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._outcome: PartOutcome | None = None
        self._watch = Stopwatch()
        self._moved_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="checkpoint-part", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    @property
    def outcome(self) -> PartOutcome | None:
        """How it ended; None as long as it has not."""
        return self._outcome

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over, after at most so long."""
        return self._over.wait(timeout_s)

    def still_for_s(self, now_s: float) -> float:
        """How long no block has been written, while it is this part's turn."""
        before = self._before
        if self._outcome is not None or (before is not None and before.outcome is None):
            return 0.0
        return now_s - self._moved_s

    def give_up(self, error: str, cause: str = "other") -> None:
        """Ends it as failed, at once for whoever asks; the thread follows as soon as it can."""
        self._cancelled.set()
        self._end(None, error, cause)

    def _run(self) -> None:
        with self._watch.measuring():
            part, error, cause = self._tried(self._saved)
        self._before = None  # a chain of parts must not live as long as the job
        self._released()
        if not self._cancelled.is_set():
            # Not measured: what the others wait for then is no stage of this part.
            _, not_shared, why = self._tried(lambda: self._share(part, alive=self._beat, check=self._check_wanted))
            error, cause = (error, cause) if error else (not_shared, why)
        self._end(None if error else part, error, cause)

    def _tried(self, do: Callable[[], T]) -> tuple[T | None, str, str]:
        """What came of it, why nothing did, and that in a word."""
        try:
            return do(), "", ""
        except _Cancelled:
            return None, "nobody wants it any more", "other"
        except TrainctlError as failure:
            return None, str(failure), self.source.cause or (NO_ROOM if isinstance(failure, NoRoomError) else "storage")
        except BaseException as failure:
            _LOG.exception("a part of a checkpoint could not be written")
            cause = self.source.cause or ("storage" if isinstance(failure, OSError) else "other")
            return None, f"{type(failure).__name__}: {failure}", cause

    def _saved(self) -> PartReport:
        with timed(COPY):
            self.source.copy()
        if self._beside_training:
            self._cancelled.wait(first_rest_s(sum(entry.size_bytes for entry in self.source.data)))
        # Not earlier: the next change of the state waits for the copy, which would not come off beside busy threads.
        with contextlib.suppress(OSError, AttributeError):  # a courtesy that not every system knows
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._before is not None and not self._before.wait(0.1):
            self._beat()
        with timed(WRITE), beside_training() if self._beside_training else contextlib.nullcontext():
            return self._written()

    def _written(self) -> PartReport:
        pace = Pace(torch.get_num_threads())

        def alive() -> None:
            self._beat()
            if self._beside_training:
                self._cancelled.wait(pace.due_s())
                pace.resume()

        for wait_s in (*self._retry_after_s, None):
            self._beat()
            self._check_source()
            pace.resume()
            try:
                return self._write(self.source.data, alive=alive, confirm=self._until_settled)
            except (TrainctlError, OSError) as error:
                if wait_s is None or self.source.reason or _lasts(error):
                    raise
                _LOG.warning("a part of a checkpoint could not be written, tried again in %g s: %s", wait_s, error)
                self._cancelled.wait(wait_s)
        raise AssertionError  # the last turn of the loop returned or raised

    def _until_settled(self) -> None:
        with timed(_SETTLING):  # that is the training's time, not the storage's
            while not self.source.settled(0.05):
                self._beat()
        self._check_source()

    def _check_source(self) -> None:
        if self.source.reason:
            raise CheckpointError(self.source.reason)

    def _beat(self) -> None:
        self._moved_s = time.monotonic()
        self._check_wanted()

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise _Cancelled

    def _end(self, part: PartReport | None, error: str, cause: str) -> None:
        stages = {stage: seconds for stage, seconds in self._watch.seconds.items() if stage != _SETTLING}
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = PartOutcome(part, error, stages, cause)
        self._over.set()
        self._changed()


def _lasts(error: BaseException) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in LASTING
