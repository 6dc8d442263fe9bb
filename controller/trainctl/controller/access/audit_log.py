"""The audit log: who asked for which change, and who was refused, in the store and in the controller's log.

A change is written down before it is made, and its outcome afterwards: whoever dies in between leaves a record without
an outcome, which the next leader marks as unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from trainctl.controller.access.audit_record import UNKNOWN, AuditRecord
from trainctl.controller.access.audit_trail import BATCH, AuditTrail, Batch
from trainctl.controller.access.limits import Bucket, Rate, take
from trainctl.controller.jobs.room import check_room
from trainctl.controller.leadership import FenceCounter, Leadership
from trainctl.controller.store.port import StateStore, StoreFullError
from trainctl.core.codec import to_wire
from trainctl.core.errors import UnavailableError
from trainctl.core.system.faults import FaultPlan

_log = logging.getLogger(__name__)
KEPT_S = 7 * 24 * 3600.0
MOST_RECORDS = 10_000
TIDY_EVERY_S = 60.0
_PAGE = 500
_MOST_WAITING = 5000
_WRITE_AFTER_S = 0.02
_RETRY_S = 1.0
OFTEN = Rate(5, 50)
"""Of each sort that comes by itself (refusals, agents): so many records are kept; the others are counted."""


class AuditLog:
    """Writes records down, and reads them.

    Args:
        store: read directly.
        leadership: written through.
        now_s: Unix seconds.
        counter: of records.
        faults: armed fault points.
    """

    def __init__(
        self,
        store: StateStore,
        leadership: Leadership,
        *,
        now_s: Callable[[], float],
        counter: FenceCounter,
        faults: FaultPlan,
    ) -> None:
        self._store = store
        self._trail = AuditTrail(store, leadership)
        self._now_s = now_s
        self._counter = counter
        self._faults = faults
        self._lock = asyncio.Lock()
        self._waiting: deque[AuditRecord] = deque()
        self._wake = asyncio.Event()
        self._sent: Batch = ()
        self._buckets: dict[str, Bucket] = {}
        self._left_out: dict[str, int] = {}

    async def load(self) -> None:
        """Goes on behind the newest record of the leaders before."""
        await self._trail.load()

    async def begin(self, record: AuditRecord) -> AuditRecord:
        """Writes down that a change was asked for; returns the record to ``end``.

        A store without room takes no record, and only the log gets one: what frees room must not wait for it.

        Raises:
            StoreUnavailableError, FencedError: it is not written down, so the change must not be made.
        """
        async with self._lock:
            try:
                if self._waiting:  # what came before is known when this begins
                    await self._write_first()
                (record,) = await self._write([record])
            except StoreFullError:
                self._count("not_stored")
        self._faults.reach("controller.audited", method=record.method, subject=record.subject)
        return record

    def end(self, record: AuditRecord, outcome: str, reason: str = "") -> None:
        """The change was made, or was not: it is written down soon."""
        done = replace(record, outcome=outcome, reason=reason, done_s=self._now_s())
        _tell(done)
        if record.number:
            self._put(done)

    def note(self, record: AuditRecord, outcome: str, reason: str = "", *, sort: str) -> None:
        """Something that nobody waits for: a refusal, an agent that came. Too many of a sort are only counted."""
        now_s = self._now_s()
        self._buckets[sort], wait_s = take(self._buckets.get(sort), OFTEN, now_s)
        if wait_s or len(self._waiting) >= _MOST_WAITING:
            self._left_out[sort] = self._left_out.get(sort, 0) + 1
            self._count("left_out")
            return
        left_out = self._left_out.pop(sort, 0)
        done = replace(record, time_s=now_s, outcome=outcome, reason=reason, done_s=now_s, left_out=left_out)
        _tell(done)
        self._put(done)

    async def run(self) -> None:
        """Writes what waits, and removes what is old, until cancelled."""
        await self._mark_unknown()
        tidied_s = 0.0
        while True:
            try:
                async with asyncio.timeout(TIDY_EVERY_S):
                    await self._wake.wait()
                await asyncio.sleep(_WRITE_AFTER_S)  # others come meanwhile
            except TimeoutError:
                pass
            try:
                await self.flush()
                if self._now_s() - tidied_s >= TIDY_EVERY_S:
                    await self.tidy()
                    tidied_s = self._now_s()
            except UnavailableError as error:
                _log.warning("audit records wait for the state store: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Writes what waits.

        Raises:
            UnavailableError: the store does not take it; it still waits.
        """
        async with self._lock:
            self._wake.clear()
            try:
                while self._waiting:
                    await self._write_first()
            except BaseException:
                self._wake.set()
                raise

    async def read(self, *, after: int, limit: int) -> tuple[Batch, bool]:
        """Records with a greater number, oldest first, and whether there are more."""
        return await self._trail.read(after=after, limit=limit)

    async def tidy(self) -> None:
        """Removes records from the front: those that are too old or too many."""
        await self._trail.remove(older_than_s=self._now_s() - KEPT_S, most=MOST_RECORDS)

    async def _write_first(self) -> None:
        """Of what waits as much as one transaction takes; it waits on until it is known to be there."""
        await self._settled()
        if await self._is_tight():
            self._waiting = deque(one for one in self._waiting if one.number)
        if not self._waiting:
            return
        self._sent = self._trail.numbered(list(islice(self._waiting, BATCH)), self._now_s())
        if await self._trail.append(self._sent):
            self._was_written(self._sent)

    def _was_written(self, batch: Batch) -> None:
        for _ in batch:
            self._waiting.popleft()
        self._count("done", len(batch))
        self._sent = ()

    async def _write(self, records: Sequence[AuditRecord]) -> Batch:
        while True:
            await self._settled()
            batch = self._trail.numbered(records, self._now_s())
            if await self._trail.append(batch):
                self._count("begun")
                return batch

    async def _settled(self) -> None:
        """Of writes whose answer was lost, finds what is there: changes among it were not made, since nobody heard."""
        there = await self._trail.settle()
        if there and there == self._sent[: len(there)]:
            self._was_written(there)
        for record in (one for one in there if not one.outcome):
            reason = "the state store did not answer in time"
            self._put(replace(record, outcome="UNAVAILABLE", reason=reason, done_s=self._now_s()))

    async def _is_tight(self) -> bool:
        """Whether there is no room for records that nobody asked for: what is left is for the jobs that run."""
        if all(one.number for one in islice(self._waiting, BATCH)):
            return False
        try:
            await check_room(self._store)
        except StoreFullError:
            self._count("not_stored")
            return True
        return False

    async def _mark_unknown(self) -> None:
        """Whoever led before did not live to write how these ended."""
        after, more = 0, True
        while more:
            try:
                records, more = await self.read(after=after, limit=_PAGE)
            except UnavailableError:
                await asyncio.sleep(_RETRY_S)
                continue
            for one in records:
                if not one.outcome and one.epoch < self._trail.epoch:
                    self._put(replace(one, outcome=UNKNOWN, reason="the controller ended before it was done"))
                after = one.number

    def _put(self, record: AuditRecord) -> None:
        if len(self._waiting) < 2 * _MOST_WAITING:
            self._waiting.append(record)
        self._wake.set()

    def _count(self, state: str, number: int = 1) -> None:
        self._counter.inc("trainctl_audit_records_total", number, state=state)


def _tell(record: AuditRecord) -> None:
    _log.info("audit: %s %s", record.method, record.outcome, extra={"audit": to_wire(record)})
