"""Room in the state store: new work is refused before it runs out, so that what runs can still be recovered."""

from __future__ import annotations

from trainctl.controller.store.port import StateStore, StoreFullError
from trainctl.core.units import format_bytes

RESERVED = 0.2
"""Part of the store that only jobs which were taken in may use."""


async def check_room(store: StateStore) -> None:
    """Sees that a new job may be taken in.

    Raises:
        StoreFullError: the rest is for the jobs that are there.
    """
    capacity = store.capacity_bytes
    if not capacity:
        return
    used = await store.size_bytes()
    if used > (1 - RESERVED) * capacity:
        raise StoreFullError(
            f"the state store occupies {format_bytes(used)} of {format_bytes(capacity)}: no new jobs are taken in, "
            "those that run go on",
            hint="delete old jobs (trainctl delete), then defragment etcd (etcdctl defrag), or raise its quota and the "
            "option quota of the store's address",
        )
