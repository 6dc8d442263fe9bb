"""Ranks as threads, for tests of what passes between them."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from torch._C._distributed_c10d import TCPStore

from waiting import PATIENCE_S

T = TypeVar("T")


class WorldError(AssertionError):
    """A rank failed, or the world did not get there in time."""


def store() -> TCPStore:
    """A collective store that outlives the ranks; keep the object alive."""
    return TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30), False)


def world(size: int, body: Callable[[int, str], T], *, deadline_s: float = PATIENCE_S) -> list[T]:
    """Runs ``body(rank, store_address)`` in a thread for each rank; returns what they returned, in rank order."""
    server = store()
    results: dict[int, T] = {}
    errors: dict[int, str] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = body(rank, f"127.0.0.1:{server.port}")
        except BaseException:
            errors[rank] = traceback.format_exc()

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank-{rank}", daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [thread.name for thread in threads if thread.is_alive()]
    if late:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    if errors or late:
        raise WorldError(f"late: {late}\n" + "\n".join(f"rank {rank}:\n{text}" for rank, text in errors.items()))
    return [results[rank] for rank in range(size)]
