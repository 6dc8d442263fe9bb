"""Work that must not be cut in half by a caller that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def to_the_end(work: Coroutine[Any, Any, R]) -> R:
    """Runs ``work`` in a task of its own: if the caller is cancelled (a client hung up), the work still completes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Somebody has to look at the result, or an error in it would be reported as never retrieved.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
