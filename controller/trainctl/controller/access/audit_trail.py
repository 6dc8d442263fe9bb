"""The records of the audit log in the store: numbered without a gap, none overwritten, also by a write that comes late.

Every write compares and moves the number of the newest record. So of the writes whose answer was lost at most one has
happened or still can, and whether it has shows before the next number is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainctl.controller import keys
from trainctl.controller.access.audit_record import UNREADABLE, AuditRecord
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import (
    Compare,
    Delete,
    KeyValue,
    Put,
    StateStore,
    StoreCorruptError,
    StoreFullError,
    Target,
)
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import FencedError

BATCH = 60
"""Records that one transaction takes."""
Batch = tuple[AuditRecord, ...]


class AuditTrail:
    """One writer's view of the records.

    Args:
        store: read directly.
        leadership: written through.

    Attributes:
        newest: number of the newest record.
    """

    def __init__(self, store: StateStore, leadership: Leadership) -> None:
        self.newest = 0
        self.epoch = leadership.epoch
        self._store = store
        self._leadership = leadership
        self._revision = 0
        self._unsure: list[Batch] = []
        self._moved = False

    async def load(self) -> None:
        """Goes on behind the newest record of the leaders before."""
        found = await self._store.get(keys.AUDIT_NEWEST)
        if found is not None:
            with reading(keys.AUDIT_NEWEST):
                self.newest = int(keys.decode(found.value))
            self._revision = found.mod_revision

    def numbered(self, records: Sequence[AuditRecord], now_s: float) -> Batch:
        """The records, with the next numbers for those that have none."""
        number = self.newest
        batch: list[AuditRecord] = []
        for record in records:
            if not record.number:
                number += 1
                record = replace(record, number=number, time_s=record.time_s or now_s, epoch=self.epoch)
            batch.append(record)
        return tuple(batch)

    async def settle(self) -> Batch:
        """Which of the writes without an answer turned out to be there, if one did; called before numbers are given.

        Raises:
            StoreUnavailableError: it is still not known.
        """
        if not self._unsure and not self._moved:
            return ()
        head = await self._store.get(keys.AUDIT_NEWEST)
        if head is None or head.mod_revision == self._revision:
            return ()
        there: Batch = ()
        before = self.newest
        await self.load()
        for batch in reversed(self._unsure):  # each one repeats those before it, and adds to them
            last = await self._store.get(keys.audit(batch[-1].number))
            written = last is not None and last.value == keys.encode(to_wire(batch[-1]))
            if written and self.newest == _newest_of(batch, before):
                there = batch
                break
        self._unsure.clear()
        self._moved = False
        return there

    async def append(self, batch: Batch) -> bool:
        """Writes numbered records; False if the numbers are taken meanwhile, so ``settle`` has to look.

        Raises:
            StoreUnavailableError: whether they are there is not known.
            StoreFullError, FencedError: they are not.
        """
        newest = _newest_of(batch, self.newest)
        puts = [Put(keys.audit(record.number), keys.encode(to_wire(record))) for record in batch]
        unmoved = Compare(keys.AUDIT_NEWEST, Target.MOD_REVISION, self._revision)
        try:
            done = await self._leadership.txn((unmoved,), (*puts, Put(keys.AUDIT_NEWEST, keys.encode(newest))))
        except (StoreFullError, FencedError):
            raise
        except BaseException:  # also where nobody waits for the answer any more
            self._unsure.append(batch)
            raise
        if not done.succeeded:
            self._moved = True
            return False
        self.newest, self._revision = newest, done.revision
        return True

    async def read(self, *, after: int, limit: int) -> tuple[Batch, bool]:
        """Records with a greater number, oldest first, and whether there are more.

        One that cannot be read is shown as such, and harms no other.
        """
        found = await self._store.range(keys.AUDIT, limit=limit, start_after=keys.audit(after))
        return tuple(_read(item) for item in found.items), found.more

    async def remove(self, *, older_than_s: float, most: int) -> None:
        """Takes records from the front: those that are too old or too many."""
        more, going = True, True
        while more and going:
            records, more = await self.read(after=0, limit=BATCH)
            gone = [one for one in records if one.time_s < older_than_s or one.number <= self.newest - most]
            if gone:
                await self._leadership.txn((), [Delete(keys.audit(one.number)) for one in gone])
            going = bool(gone)


def _newest_of(batch: Batch, newest: int) -> int:
    """The newest number once a batch is written."""
    return max(newest, *(record.number for record in batch))


def _read(item: KeyValue) -> AuditRecord:
    number = int(item.key.removeprefix(keys.AUDIT))
    try:
        with reading(item.key):
            return replace(from_wire(AuditRecord, keys.decode(item.value)), number=number)
    except StoreCorruptError as error:
        return AuditRecord(number=number, outcome=UNREADABLE, reason=str(error)[:300])
