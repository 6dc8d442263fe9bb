"""Lanes: iterators of work, each resumed when its work is done: one thread sends to and receives from many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from trainctl.checkpoint.exchange.port import Work
from trainctl.core.errors import CollectiveError

MESSAGE_BYTES = 4 << 20
"""Small enough that packing, sending and unpacking overlap; large enough that the count does not matter."""
IN_FLIGHT = 4
"""Messages from one rank to another that are under way at once."""
_LOOK_EVERY_S = 0.001

T = TypeVar("T")
Lane = Iterator[Work]


def ahead(messages: Iterable[T]) -> Iterator[T]:
    """Gives the messages of a lane in order, with the next ones under way: each starts when it is taken from there."""
    in_flight: deque[T] = deque()
    for message in messages:
        in_flight.append(message)
        if len(in_flight) == IN_FLIGHT:
            yield in_flight.popleft()
    yield from in_flight


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
