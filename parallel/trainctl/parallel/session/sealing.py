"""Rank 0 completes a save whose parts are all durable, beside the training, and says how it went."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trainctl.checkpoint.engine import Attempt, PartReport
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.monitor import PartTimes, bottleneck
from trainctl.checkpoint.snapshot.background import PartOutcome
from trainctl.core.errors import TrainctlError
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.session.checkpoints import Checkpoints

_LOG = logging.getLogger("trainctl.session")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A save of which all parts have ended.

    Attributes:
        attempt: which save.
        state: names, shapes, objects and artifacts; no tensor is read.
        parts: how the parts of all ranks ended, in rank order.
        began_s: when the save began, monotonic.
        stall_s: how long training waited for it.
        pool_bytes: host memory that copies occupy, on the rank where it is most.
    """

    attempt: Attempt
    state: LocalState
    parts: Sequence[PartOutcome]
    began_s: float
    stall_s: float
    pool_bytes: int

    @property
    def written(self) -> list[PartReport]:
        """The parts that are durable."""
        return [outcome.part for outcome in self.parts if outcome.part is not None]

    @property
    def errors(self) -> list[str]:
        """Why others are not, with their ranks."""
        return [f"rank {rank}: {part.error}" for rank, part in enumerate(self.parts) if part.error]

    @property
    def cause(self) -> str:
        """Of the first error; if there is none, whatever fails from here on is the sealing."""
        return next((part.cause for part in self.parts if part.error), "seal")


class SealThread:
    """Seals one save in a thread of its own, after ``before``.

    Args:
        seal: is given the newest reference so far, and gives back the new one; None if it failed.
        failed: told why nobody waits for it any longer.
        parent: the newest reference before all that are on their way.
        before: the seal of the save before: one at a time, in order.
        changed: called when it is over.
    """

    def __init__(
        self,
        seal: Callable[[CheckpointRef | None], CheckpointRef | None],
        *,
        failed: Callable[[str], None],
        parent: CheckpointRef | None,
        before: SealThread | None,
        changed: Callable[[], None],
    ) -> None:
        self.ref: CheckpointRef | None = None
        self._seal = seal
        self._failed = failed
        self._parent = parent
        self._before = before
        self._changed = changed
        self._over = threading.Event()
        self._began_s = time.monotonic()
        threading.Thread(target=self._run, name="checkpoint-seal", daemon=True).start()

    def over(self, within_s: float) -> bool:
        """Whether it is over; it has failed if it takes longer than ``within_s`` from its turn on."""
        if not self._over.is_set() and self._before is None and time.monotonic() - self._began_s > within_s:
            self._over.set()
            self._failed(f"sealing it took more than {within_s:g} s: the storage does not answer")
        return self._over.is_set()

    def _run(self) -> None:
        before = self._before
        if before is not None:
            before._over.wait()
            self._parent = before.ref or self._parent
            self._began_s = time.monotonic()
            self._before = None  # its turn begins; not before that is known
        try:
            ref = self._seal(self._parent)
        except Exception as error:
            _LOG.exception("a checkpoint could not be sealed")
            ref = None
            self._failed(str(error) if isinstance(error, TrainctlError) else f"{type(error).__name__}: {error}")
        if not self._over.is_set():
            self.ref = ref
            self._over.set()
        self._changed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """How rank 0 seals.

    Attributes:
        checkpoints: where to.
        record: of the generation.
        settle: called before: the records hold every step up to the checkpoint's.
        report: called after, on whatever thread.
    """

    checkpoints: Checkpoints
    record: GenerationRecord
    settle: Callable[[], None]
    report: Callable[[CheckpointReport], None]

    def begin(
        self,
        save: Collected,
        *,
        parent: CheckpointRef | None,
        before: SealThread | None,
        changed: Callable[[], None],
    ) -> SealThread:
        """Completes the attempt if all parts are there, else removes it, in the background.

        Args:
            save: which one.
            parent: the checkpoint that it continues, if there is one, unless ``before`` makes a newer one.
            before: what is sealed before.
            changed: called when it is over.
        """
        sealing = _Sealing(sealer=self, save=save)
        return SealThread(sealing.seal, failed=sealing.failed, parent=parent, before=before, changed=changed)

    def complete(self, save: Collected, parent: CheckpointRef | None) -> tuple[CheckpointRef | None, list[str]]:
        """The checkpoint; or None and why not, when what was written is removed, unless somebody else completed it."""
        errors = save.errors
        if not errors:
            self.settle()
            try:
                writer = self.checkpoints.writer()
                return writer.seal(save.attempt, state=save.state, parts=save.written, parent=parent), []
            except (TrainctlError, OSError) as error:
                errors.append(f"rank 0: {error}")
        try:
            self.checkpoints.writer().discard(save.attempt)
        except (TrainctlError, OSError) as error:
            errors.append(f"and what was written could not be removed: {error}")
        return None, errors


@dataclass(slots=True, kw_only=True)
class _Sealing:
    """One save that is completed, and what is said of it. On the thread that seals; ``failed`` on whoever waits, too.

    Attributes:
        sealer: how.
        save: which one.
        since_s: when it was this one's turn, monotonic.
    """

    sealer: Sealer
    save: Collected
    since_s: float = field(default_factory=time.monotonic)

    def seal(self, newest: CheckpointRef | None) -> CheckpointRef | None:
        """As ``SealThread`` calls it."""
        self.since_s = time.monotonic()  # those before it are sealed
        ref, errors = self.sealer.complete(self.save, newest)
        self._report(ref, "; ".join(errors), self.save.cause if errors else "")
        return ref

    def failed(self, error: str) -> None:
        """As ``SealThread`` calls it."""
        self._report(None, error, "seal")

    def _report(self, ref: CheckpointRef | None, error: str, cause: str) -> None:
        save, record = self.save, self.sealer.record
        times = [PartTimes(part.writer, part.data_bytes, part.seconds) for part in save.written]
        self.sealer.report(
            CheckpointReport(
                job_uid=save.attempt.job,
                island=record.island,
                generation=record.generation,
                step=save.attempt.step,
                lineage=save.attempt.lineage,
                ref=ref,
                error=error,
                seconds=time.monotonic() - save.began_s,
                stall_s=save.stall_s,
                size_bytes=sum(part.data_bytes for part in save.written) if ref is not None else 0,
                bottleneck=bottleneck(times, uri=ref.uri) if ref is not None else "",
                cause=cause,
                parts=tuple(times),
                seal_s=time.monotonic() - self.since_s if ref is not None else 0.0,
                pool_bytes=save.pool_bytes,
            )
        )
