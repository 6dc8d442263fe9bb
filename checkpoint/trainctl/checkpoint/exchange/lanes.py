"""Lanes: iterators of work, each resumed when its work is done: one thread sends to and receives from many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trainctl.checkpoint.exchange.port import Work
from trainctl.core.errors import CollectiveError

_LOOK_EVERY_S = 0.001

Lane = Iterator[Work]


def run_lanes(lanes: Sequence[Lane], *, alive: Callable[[], None], check: Callable[[], None]) -> None:
    """Runs all to their ends.

    Args:
        lanes: begun by nobody yet.
        alive: called when a message arrived or was taken.
        check: called every few milliseconds; what it raises ends everything.

    Raises:
        CollectiveError: a message failed.
    """
    waiting = [(lane, work) for lane in lanes if (work := next(lane, None)) is not None]
    while waiting:
        left = []
        for lane, work in waiting:
            following: Work | None = work
            while following is not None and following.done():
                if problem := following.error():
                    raise CollectiveError(f"a message between ranks failed: {problem}")
                following = next(lane, None)
                alive()
            if following is not None:
                left.append((lane, following))
        waiting = left
        check()
        if waiting:
            waiting[0][1].done_within(_LOOK_EVERY_S)
