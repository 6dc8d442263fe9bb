"""Who is told to end ends, even where what it waits for keeps that to itself.

Without it an agent that was stopped while its controller went away could try for ever to reach it.
"""

from __future__ import annotations

import asyncio

import pytest

from trainctl.core.system.cancelling import heeding_cancellation


async def deaf(began: asyncio.Event, end: Exception | None) -> str:
    """As a call of gRPC whose end has come already when it is cancelled."""
    began.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if end is not None:
            raise end from None
    return "done"


@pytest.mark.parametrize("end", [None, ConnectionError("away")])
def test_a_cancellation_that_is_kept_back_is_heard(end: Exception | None) -> None:
    async def main() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(heeding_cancellation(deaf(began, end)))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("end", [None, ConnectionError("away")])
def test_a_deadline_is_heard_as_one(end: Exception | None) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await heeding_cancellation(deaf(asyncio.Event(), end))

    asyncio.run(main())


def test_who_is_told_to_end_may_still_call_while_it_cleans_up() -> None:
    async def answer() -> str:
        return "revoked"

    async def refuse() -> str:
        raise ConnectionError("away")

    said: list[str] = []

    async def cleaning(began: asyncio.Event) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            said.append(await heeding_cancellation(answer()))
            with pytest.raises(ConnectionError, match="away"):
                await heeding_cancellation(refuse())
            said.append("closed")

    async def main() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(cleaning(began))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert said == ["revoked", "closed"]


def test_else_it_is_what_it_waits_for() -> None:
    async def answer() -> int:
        return 7

    assert asyncio.run(heeding_cancellation(answer())) == 7
