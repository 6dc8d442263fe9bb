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
        OSError: of the first lane that raised one; the others went on, since other ranks wait for them.
    """
    failures: list[OSError] = []

    def resumed(lane: Lane) -> Work | None:
        try:
            return next(lane, None)
        except OSError as error:
            failures.append(error)
            return None

    waiting = [(lane, work) for lane in lanes if (work := resumed(lane)) is not None]
    while waiting:
        left: list[tuple[Lane, Work]] = []
        for lane, work in waiting:
            following: Work | None = work
            while following is not None and following.done():
                if problem := following.error():
                    raise CollectiveError(f"a message between ranks failed: {problem}")
                following = resumed(lane)
                alive()
            if following is not None:
                left.append((lane, following))
        waiting = left
        check()
        if waiting:
            waiting[0][1].done_within(_LOOK_EVERY_S)
    if failures:
        raise failures[0]
