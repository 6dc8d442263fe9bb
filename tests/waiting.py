"""Waiting for what processes, files and threads do not tell of themselves: asked again and again, with a deadline."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE_S = 150.0
"""Below the time that a test has, so that it says what it waited for."""
EVERY_S = 0.01


def until(
    condition: Callable[[], object], what: str | Callable[[], str] = "", *, deadline_s: float = PATIENCE_S
) -> None:
    """Waits until ``condition`` is true; where it never is, ``what`` says what was expected or is."""
    for _ in _tries(condition, what, deadline_s):
        threading.Event().wait(EVERY_S)


async def until_async(
    condition: Callable[[], object], what: str | Callable[[], str] = "", *, deadline_s: float = PATIENCE_S
) -> None:
    """The same on an event loop."""
    for _ in _tries(condition, what, deadline_s):
        await asyncio.sleep(EVERY_S)


def _tries(condition: Callable[[], object], what: str | Callable[[], str], deadline_s: float) -> Iterator[None]:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"still not true after {deadline_s:g} s: {what() if callable(what) else what}"
        yield
