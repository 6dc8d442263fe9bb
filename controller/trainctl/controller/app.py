"""The controller, put together: alone with a store of its own, or in turn with others that share one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from trainctl.controller.frame import Frame, framed
from trainctl.controller.installation import NewerStoreError, fingerprint, inspect, load_sighting, stamp
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.rpc.standby import FailedTry
from trainctl.controller.settings import Settings
from trainctl.controller.standby import DAMAGED_S, campaign, standing_by
from trainctl.controller.store.port import StoreCorruptError
from trainctl.controller.term import Controller, leading
from trainctl.core.errors import FencedError, PreconditionError, TrainctlError, UnavailableError

__all__ = ["Controller", "Settings", "controller", "serve"]
_log = logging.getLogger(__name__)


@asynccontextmanager
async def controller(settings: Settings) -> AsyncGenerator[Controller, None]:
    """A controller that leads from the beginning, in this event loop, for as long as the block lasts.

    Raises:
        TrainctlError: the folder, the store or a port cannot be had.
        ConflictError: the store is shared, and another controller leads.
    """
    async with framed(settings) as frame:
        leadership = await Leadership.take(frame.store, await _candidate(frame, ""), counter=frame.metrics)
        try:
            async with leading(frame, leadership, port=settings.port) as running:
                yield running
        finally:
            await _resign(frame, leadership)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Runs until ``stop``; where others share the store, leads whenever it is this one's turn.

    Raises:
        TrainctlError: as ``controller``; later failures of a shared store only end the term.
    """
    if not settings.store_address.shared:
        async with controller(settings) as running:
            await _until(stop, running)
        return
    async with framed(settings) as frame:
        await _look_whose_store(frame)
        await take_turns(frame, stop)


async def take_turns(frame: Frame, stop: asyncio.Event) -> None:
    """Runs until ``stop`` beside others that share the store: waits, leads while it is this one's turn, waits again.

    Raises:
        TrainctlError: the port cannot be had, or the store is none to act on.
    """
    port = frame.settings.port or frame.settings.run_dir.former_port()
    failed = _former_end(frame)
    while not stop.is_set():
        port, failed = await _wait_and_lead(frame, port, failed, stop)


async def _wait_and_lead(
    frame: Frame, port: int, failed: FailedTry | None, stop: asyncio.Event
) -> tuple[int, FailedTry | None]:
    """Stands by, leads, and returns the port when the term is over, and what ended it if that was no order."""
    server = frame.network.waiting()
    server.failed = failed
    async with standing_by(server, frame.settings.host, port) as address:
        port = int(address.rpartition(":")[2])
        frame.write_run_file(address)
        _log.info("the controller stands by", extra={"address": address})
        ready = partial(_candidate, frame, address)
        rest_s = DAMAGED_S if failed is not None and isinstance(failed.error, StoreCorruptError) else 0.0
        turn = asyncio.create_task(
            campaign(frame.store, ready, server, now_s=frame.clock.now_s, rest_s=rest_s, counter=frame.metrics)
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({turn, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not turn.done():
            turn.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await turn
            return port, None
        leadership = turn.result()
    try:
        async with leading(frame, leadership, port=port) as running:
            try:
                await _until(stop, running)
            finally:
                await _resign(frame, leadership)
    except (FencedError, UnavailableError, StoreCorruptError) as error:
        _log.error("this controller leads no longer (epoch %d): %s", leadership.epoch, error)
        why = leadership.silence or error
        return port, None if isinstance(why, FencedError) else FailedTry(frame.clock.now_s(), why)
    finally:
        await _resign(frame, leadership)  # also if it never came to serve
    return port, None


def _former_end(frame: Frame) -> FailedTry | None:
    """Why an earlier life in this folder ended by itself: until this one has tried, that is all that is known."""
    end = frame.settings.run_dir.end()
    if end is None:
        return None
    error = TrainctlError(end.message, hint=end.hint)
    error.code = end.code
    return FailedTry(end.at_s, error)


async def _look_whose_store(frame: Frame) -> None:
    """A controller of another installation is told at its start, not when it would be needed.

    Raises:
        ConflictError, NewerStoreError: it would never lead.
    """
    try:
        await _candidate(frame, "")
    except NewerStoreError:
        raise
    except (UnavailableError, PreconditionError) as error:  # may be over when its turn comes
        _log.warning("this controller cannot ask for the lead at the moment: %s", error)


async def _until(stop: asyncio.Event, running: Controller) -> None:
    stopping = asyncio.create_task(stop.wait())
    endings: set[asyncio.Future[Any]] = {stopping, running.failed}
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.failed.done():
        running.failed.result()
    _log.info("the controller stops; agents and workers run on")


async def _resign(frame: Frame, leadership: Leadership) -> None:
    """First of all, so that the next one takes over while this one still tidies up."""
    with contextlib.suppress(UnavailableError, TimeoutError):
        async with asyncio.timeout(1.0):
            await leadership.resign(frame.clock.now_s())


async def _candidate(frame: Frame, address: str) -> Candidate:
    """What to take the leadership with, once the store was found to be one that this controller may act on."""
    settings, run = frame.settings, frame.settings.run_dir
    own = fingerprint(run.token())
    authority = frame.tls.authority.fingerprint if frame.tls is not None else ""
    former = load_sighting(run.sighting_file)
    found = await inspect(
        frame.store, own, former, accept=settings.accept_store, authority=authority, schema=frame.schema
    )
    return Candidate(
        holder=frame.who,
        address=settings.advertise or address,
        ttl_s=settings.lease_ttl_s,
        now_s=frame.clock.now_s(),
        beyond=found.epoch,
        compares=(found.unmoved,),
        writes=(stamp(own, authority, schema=found.schema),),
    )
