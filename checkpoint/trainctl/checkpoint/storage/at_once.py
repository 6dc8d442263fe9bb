"""Many small requests of a storage, as many at a time as it bears: each takes long, and none hinders another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trainctl.checkpoint.storage.port import Storage

A = TypeVar("A")
B = TypeVar("B")


def at_once(storage: Storage, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """What ``work`` gives for each item, in their order; the first error is raised, and nothing more is begun then.

    Args:
        storage: that is asked.
        work: called by any of several threads.
        items: what for.
    """
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(storage.requests_at_once, len(items)), "checkpoint-read") as pool:
        return list(pool.map(work, items))
