"""A word while the ranks of a group wait for each other: torch itself says nothing until it gives up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager

_LOG = logging.getLogger("trainctl.checkpoint")


@contextmanager
def said_while_waiting(what: str, who: str, give_up_s: float | None, *, every_s: float) -> Generator[None, None, None]:
    """Logs a line when the block takes long, and then again and again, on a thread that ends with it.

    Args:
        what: is going on; empty: the ranks only compare what they know.
        who: waits for whom, as ``rank 0 of 2 has waited for the other ranks``.
        give_up_s: after so long torch raises; None: it is not known.
        every_s: how long is long.
    """
    over = threading.Event()
    about = f"{what}: " if what else ""
    end = f"; given up after {give_up_s:.0f} s" if give_up_s is not None else ""

    def say() -> None:
        waited_s = every_s
        while not over.wait(every_s):
            _LOG.warning("%s%s for %.0f s: one is slow or frozen, or makes another call%s", about, who, waited_s, end)
            waited_s += every_s

    thread = threading.Thread(target=say, name="waiting-for-ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
