"""The events of one job: numbered 1, 2, 3 without a gap, the newest kept in a ring, in memory as in the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainctl.controller import keys
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.store.port import Delete, Operation, Put
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import PreconditionError

EVENTS_KEPT = 1000
MAX_TRIMS = 32
"""Old batches removed in one transaction; if more are due, the next ones take them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """An event as stored and shown (message ``Event``).

    ``revision`` is its number in the job, ``epoch`` that of the leader that wrote it (0: before they said so).
    """

    revision: int
    time_s: float
    job_uid: str
    type: str
    reason: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    epoch: int = 0


class EventsExpiredError(PreconditionError):
    """The wanted events were dropped from the ring."""

    code = "RESOURCE_VERSION_EXPIRED"


class Journal:
    """The ring of one job. Events of one transaction share one key, so they cost one operation.

    Args:
        tenant: of the job.
        uid: of the job.
        epoch: of the leader that writes.
        kept: how many events.
    """

    def __init__(self, tenant: str, uid: str, *, epoch: int = 0, kept: int = EVENTS_KEPT) -> None:
        self._tenant = tenant
        self._epoch = epoch
        self._uid = uid
        self._kept = kept
        self._batches: deque[tuple[JobEvent, ...]] = deque()
        self._newest = 0
        self._count = 0

    @property
    def newest(self) -> int:
        """Number of the newest event, 0 if there is none."""
        return self._newest

    @property
    def last(self) -> JobEvent | None:
        """The newest event."""
        return self._batches[-1][-1] if self._batches else None

    def load(self, value: Any) -> None:
        """Takes in a stored batch; call in key order."""
        self._append(tuple(from_wire(JobEvent, item) for item in value))

    def prepare(self, drafts: Sequence[EventDraft], now_s: float) -> tuple[tuple[JobEvent, ...], tuple[Operation, ...]]:
        """The next events and the operations that store them; nothing changes until ``commit``."""
        first = self._newest + 1
        batch = tuple(
            JobEvent(
                revision=first + index,
                time_s=now_s,
                job_uid=self._uid,
                type=draft.type,
                reason=draft.reason,
                message=draft.message,
                fields=draft.fields,
                epoch=self._epoch,
            )
            for index, draft in enumerate(drafts)
        )
        if not batch:
            return (), ()
        put = Put(keys.events(self._tenant, self._uid, first), keys.encode(to_wire(batch)))
        return batch, (put, *(Delete(self._key(old)) for old in self._surplus(len(batch))))

    def commit(self, batch: tuple[JobEvent, ...]) -> None:
        """The prepared batch is stored."""
        if not batch:
            return
        for _ in self._surplus(len(batch)):
            self._count -= len(self._batches.popleft())
        self._append(batch)

    def after(self, revision: int, limit: int = 0) -> list[JobEvent]:
        """Events with a greater number, oldest first, at most ``limit`` (0: all). From 0: the oldest that are kept.

        Raises:
            EventsExpiredError: events right behind ``revision`` are no longer kept.
        """
        oldest = self._batches[0][0].revision if self._batches else self._newest + 1
        if 0 < revision < oldest - 1:
            raise EventsExpiredError(
                f"events after {revision} are no longer kept; the oldest one is {oldest}",
                hint="ask again from the beginning (after_revision 0)",
            )
        found = [event for batch in self._batches if batch[-1].revision > revision for event in batch]
        found = [event for event in found if event.revision > revision]
        return found[:limit] if limit else found

    def _append(self, batch: tuple[JobEvent, ...]) -> None:
        self._batches.append(batch)
        self._count += len(batch)
        self._newest = batch[-1].revision

    def _surplus(self, coming: int) -> list[tuple[JobEvent, ...]]:
        """Whole old batches that are not needed to keep the newest ``kept`` events."""
        surplus: list[tuple[JobEvent, ...]] = []
        excess = self._count + coming - self._kept
        for batch in self._batches:
            excess -= len(batch)
            if excess < 0 or len(surplus) == MAX_TRIMS:
                break
            surplus.append(batch)
        return surplus

    def _key(self, batch: Iterable[JobEvent]) -> str:
        return keys.events(self._tenant, self._uid, next(iter(batch)).revision)
