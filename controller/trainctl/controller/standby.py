"""Waiting for one's turn: beside the leader of a shared store, until it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from trainctl.controller.leadership import Candidate, FenceCounter, Leadership, find_leader, wait_vacant
from trainctl.controller.rpc.network import WaitingServer
from trainctl.controller.rpc.standby import FailedTry
from trainctl.controller.store.port import StateStore, StoreCorruptError
from trainctl.core.errors import ConflictError, UnavailableError

_log = logging.getLogger(__name__)
RETRY_S = 0.2
DAMAGED_S = 5.0
"""A store with a value that this controller cannot read is looked at again after so long: another one may read it, or
somebody mend it."""


@asynccontextmanager
async def standing_by(server: WaitingServer, host: str, port: int) -> AsyncGenerator[str, None]:
    """``server`` refuses for as long as the block lasts; gives its address.

    Raises:
        ConflictError: the port is taken.
    """
    address = server.bind(host, port)
    await server.start()
    try:
        yield address
    finally:
        await server.stop()


async def campaign(
    store: StateStore,
    ready: Callable[[], Awaitable[Candidate]],
    server: WaitingServer,
    *,
    now_s: Callable[[], float],
    rest_s: float = 0.0,
    counter: FenceCounter | None = None,
) -> Leadership:
    """Waits, however long it takes, until this controller leads; a store that is away, full or damaged is waited for.

    Args:
        store: that is shared.
        ready: asked before each try; what it raises, but for such a store, ends the waiting.
        server: tells who leads, or why this one could not.
        now_s: Unix seconds.
        rest_s: before the first try, so that others can try.
        counter: of fenced writes.
    """
    await asyncio.sleep(rest_s)
    watched, seen_ago_s = 0, 0.0
    while True:
        try:
            leader = await find_leader(store)
            if leader is None:
                server.leader = ""
                candidate = replace(await ready(), watched=watched, watched_ago_s=seen_ago_s)
                try:
                    return await Leadership.take(store, candidate, counter=counter)
                except ConflictError as error:
                    _log.info("standing by: %s", error)
                    continue
            server.failed = None
            if server.leader != f"{leader.holder} at {leader.address}":
                server.leader = f"{leader.holder} at {leader.address}"
                _log.info("standing by: %s leads with epoch %d", server.leader, leader.epoch)
            watched, seen_ago_s = leader.epoch, await wait_vacant(store, leader)
        except UnavailableError as error:  # it is away, or full: whoever leads then may be able to help
            server.failed = FailedTry(now_s(), error)
            _log.warning("standing by without the state store: %s", error)
            watched = 0  # how long nobody led is not seen from here
            await asyncio.sleep(RETRY_S)
        except StoreCorruptError as error:
            server.failed = FailedTry(now_s(), error)
            _log.error("standing by beside a damaged state store: %s", error)
            await asyncio.sleep(DAMAGED_S)
