"""Cancellation that cannot get lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def heeding_cancellation(work: Awaitable[T]) -> T:
    """Awaits ``work``; who is told to end meanwhile ends, whatever comes of it.

    A call of gRPC that fails or succeeds in the moment of its cancellation says only the one, and a loop that tries
    again would go on for ever.

    Raises:
        asyncio.CancelledError: this task was cancelled while it waited.
        Exception: what ``work`` raises.
    """
    before = _cancellations()
    try:
        result = await work
    except Exception as error:
        if _cancellations() > before:
            raise asyncio.CancelledError from error
        raise
    if _cancellations() > before:
        raise asyncio.CancelledError
    return result


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
