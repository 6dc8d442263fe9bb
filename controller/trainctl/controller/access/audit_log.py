"""The audit log: who asked for which change, and who was refused, in the store and in the controller's log.

A change is written down before it is made, and its outcome afterwards: whoever dies in between leaves a record without
an outcome, which the next leader marks as unknown. Records are numbered without a gap and removed from the front only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from trainctl.controller import keys
from trainctl.controller.access.audit_record import UNKNOWN, AuditRecord
from trainctl.controller.access.limits import Bucket, Rate, take
from trainctl.controller.jobs.room import check_room
from trainctl.controller.leadership import FenceCounter, Leadership
from trainctl.controller.store.port import Delete, Put, StateStore, StoreFullError
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import UnavailableError
from trainctl.core.system.faults import FaultPlan

_log = logging.getLogger(__name__)
KEPT_S = 7 * 24 * 3600.0
MOST_RECORDS = 10_000
TIDY_EVERY_S = 60.0
_PAGE = 500
_BATCH = 60
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
        self._leadership = leadership
        self._now_s = now_s
        self._counter = counter
        self._faults = faults
        self._newest = 0
        self._lock = asyncio.Lock()
        self._waiting: deque[AuditRecord] = deque()
        self._wake = asyncio.Event()
        self._buckets: dict[str, Bucket] = {}
        self._left_out: dict[str, int] = {}

    async def load(self) -> None:
        """Goes on behind the newest record of the leaders before."""
        found = await self._store.get(keys.AUDIT_NEWEST)
        if found is not None:
            with reading(keys.AUDIT_NEWEST):
                self._newest = int(keys.decode(found.value))

    async def begin(self, record: AuditRecord) -> AuditRecord:
        """Writes down that a change was asked for; returns the record to ``end``.

        A store without room takes no record, and only the log gets one: what frees room must not wait for it.

        Raises:
            StoreUnavailableError, FencedError: it is not written down, so the change must not be made.
        """
        async with self._lock:
            record = self._numbered(record)
            try:
                await self._write([record])
            except StoreFullError:
                self._newest -= 1
                self._count("not_stored")
                record = replace(record, number=0)
            except BaseException:  # whether it is there or not: the next one takes its number
                self._newest -= 1
                raise
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
        done = replace(
            record, time_s=now_s, epoch=self._leadership.epoch, outcome=outcome, reason=reason, done_s=now_s,
            left_out=self._left_out.pop(sort, 0),
        )  # fmt: skip
        _tell(done)
        self._put(done)

    async def run(self) -> None:
        """Writes what waits, and removes what is old, until cancelled."""
        await self._mark_unknown()
        tidy_s = 0.0
        while True:
            try:
                async with asyncio.timeout(TIDY_EVERY_S):
                    await self._wake.wait()
                await asyncio.sleep(_WRITE_AFTER_S)  # others come meanwhile
            except TimeoutError:
                pass
            try:
                await self.flush()
                if self._now_s() - tidy_s >= TIDY_EVERY_S:
                    await self.tidy()
                    tidy_s = self._now_s()
            except UnavailableError as error:
                _log.warning("audit records wait for the store: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Writes what waits.

        Raises:
            UnavailableError: the store does not take it; it still waits.
        """
        async with self._lock:
            self._wake.clear()
            while self._waiting:
                batch, newest = list(islice(self._waiting, _BATCH)), self._newest
                try:
                    kept = [one for one in batch if one.number] if await self._is_tight(batch) else batch
                    await self._write([one if one.number else self._numbered(one) for one in kept])
                except BaseException:  # it waits on, and takes the same numbers again
                    self._newest = newest
                    self._wake.set()
                    raise
                for _ in batch:
                    self._waiting.popleft()

    async def _is_tight(self, batch: Sequence[AuditRecord]) -> bool:
        """Whether there is no room for records that nobody asked for: what is left is for the jobs that run."""
        if all(one.number for one in batch):
            return False
        try:
            await check_room(self._store)
        except StoreFullError:
            self._count("not_stored")
            return True
        return False

    async def read(self, *, after: int, limit: int) -> tuple[tuple[AuditRecord, ...], bool]:
        """Records with a greater number, oldest first, and whether there are more."""
        found = await self._store.range(keys.AUDIT, limit=limit, start_after=keys.audit(after))
        records = []
        for item in found.items:
            with reading(item.key):
                records.append(from_wire(AuditRecord, keys.decode(item.value)))
        return tuple(records), found.more

    async def tidy(self) -> None:
        """Removes records from the front: those that are too old or too many."""
        oldest_s, after = self._now_s() - KEPT_S, 0
        while True:
            records, more = await self.read(after=after, limit=_BATCH)
            gone = [one for one in records if one.time_s < oldest_s or one.number <= self._newest - MOST_RECORDS]
            if gone:
                await self._leadership.txn((), [Delete(keys.audit(one.number)) for one in gone])
            if not more or len(gone) < len(records):
                return
            after = records[-1].number

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
                if not one.outcome and one.epoch < self._leadership.epoch:
                    self._put(replace(one, outcome=UNKNOWN, reason="the controller ended before it was done"))
                after = one.number

    def _numbered(self, record: AuditRecord) -> AuditRecord:
        self._newest += 1
        now_s = record.time_s or self._now_s()
        return replace(record, number=self._newest, time_s=now_s, epoch=self._leadership.epoch)

    async def _write(self, records: list[AuditRecord]) -> None:
        """In one transaction, with the number of the newest."""
        if not records:
            return
        puts = [Put(keys.audit(record.number), keys.encode(to_wire(record))) for record in records]
        await self._leadership.txn((), (*puts, Put(keys.AUDIT_NEWEST, keys.encode(self._newest))))
        for record in records:
            self._count("done" if record.outcome else "begun")

    def _put(self, record: AuditRecord) -> None:
        if len(self._waiting) < 2 * _MOST_WAITING:
            self._waiting.append(record)
        self._wake.set()

    def _count(self, state: str) -> None:
        self._counter.inc("trainctl_audit_records_total", state=state)


def _tell(record: AuditRecord) -> None:
    _log.info("audit: %s %s", record.method, record.outcome, extra={"audit": to_wire(record)})
