"""History that nobody watches any more is given up, or an etcd would grow until it refuses writes."""

from __future__ import annotations

import asyncio
import contextlib

from trainctl.controller import keys
from trainctl.controller.store.port import StateStore
from trainctl.core.errors import UnavailableError

EVERY_S = 300.0
"""How old history gets at least."""


async def compact_regularly(store: StateStore, *, every_s: float = EVERY_S) -> None:
    """Works until cancelled; an exclusive store sees to its history itself."""
    if store.exclusive:
        return
    while True:
        revision = 0
        with contextlib.suppress(UnavailableError):
            revision = (await store.range(keys.LEADER)).revision
        await asyncio.sleep(every_s)
        if revision:
            with contextlib.suppress(UnavailableError):
                await store.compact(revision)
