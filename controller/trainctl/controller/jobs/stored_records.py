"""What lies in the store beside a job's state: its events, and records that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.controller import keys
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.jobs.journal import Journal
from trainctl.controller.store.port import MAX_OPERATIONS, Operation, Put, StateStore
from trainctl.controller.stored import reading
from trainctl.core.codec import to_wire


def new_records(before: JobState, after: JobState) -> list[Operation]:
    """Generation and checkpoint records that this change commits, as keys of their own."""
    puts: list[Operation] = []
    for island in after.islands:
        former = before.island(island.id)
        record = island.record
        if record is not None and (former is None or former.record != record):
            key = keys.generation(after.tenant, after.uid, island.id, record.generation)
            puts.append(Put(key, keys.encode(to_wire(record))))
    known = set(before.checkpoints)
    puts += [
        Put(keys.checkpoint(after.tenant, after.uid, ref.step), keys.encode(to_wire(ref)))
        for ref in after.checkpoints
        if ref not in known
    ]
    return puts


async def stored_journal(store: StateStore, tenant: str, uid: str, *, epoch: int) -> Journal:
    """A job's events as they are stored; later ones are written by the leader of ``epoch``.

    Raises:
        StoreCorruptError: one of them cannot be read.
    """
    journal = Journal(tenant, uid, epoch=epoch)
    for item in (await store.range(keys.all_events(tenant, uid))).items:
        with reading(item.key):
            journal.load(keys.decode(item.value))
    return journal


def batches(names: Sequence[str]) -> list[Sequence[str]]:
    """As many at a time as one transaction takes."""
    size = MAX_OPERATIONS // 2
    return [names[start : start + size] for start in range(0, len(names), size)]
