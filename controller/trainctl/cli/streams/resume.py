"""Streams that outlive the controller: opened again from the last position, with one word to the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from trainctl.cli.connection.client import Client, StreamAgedError, connect
from trainctl.cli.context import Context
from trainctl.core.errors import UnavailableError
from trainctl.core.pauses import doubled_s

T = TypeVar("T")

AWAY_LIMIT_S = 900.0
"""How long a stream waits for a controller to come back before the command gives up."""
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


class StreamEndedError(UnavailableError):
    """The controller ended a stream although there is more to come: it is shutting down."""


def resume(
    context: Context,
    start: Callable[[Client], Iterator[T]],
    *,
    say: Callable[[str], None] | None = None,
    was_there: bool = False,
) -> Iterator[T]:
    """Yields what ``start`` yields and calls it again, with a new client, whenever the controller goes away.

    Args:
        context: names the controller; looked up again each time, since it may come back elsewhere.
        start: opens the stream from the position that it has reached, fills what was missed, raises
            ``StreamEndedError`` if the server ends it too early.
        say: told once when the controller is away and once when it is back.
        was_there: the controller has answered before, so that not even the first try may fail.

    Raises:
        UnavailableError: there is no controller at the first try, or none came back within ``AWAY_LIMIT_S``.
    """
    tell = say or context.console.say
    away_since_s: float | None = None
    tries = 0
    while True:
        try:
            with connect(context) as client:
                for message in start(client):
                    if away_since_s is not None:
                        tell(f"the controller is back after {time.monotonic() - away_since_s:.1f} s")
                    away_since_s, tries, was_there = None, 0, True
                    yield message
                return
        except StreamAgedError:
            continue
        except UnavailableError as error:
            if not was_there or (away_since_s is not None and time.monotonic() - away_since_s > AWAY_LIMIT_S):
                raise
            if away_since_s is None:
                away_since_s = time.monotonic()
                tell(f"the controller is away; the job goes on, waiting for it to come back ({_first_line(error)})")
        time.sleep(doubled_s(_FIRST_DELAY_S, tries, _MAX_DELAY_S))
        tries += 1


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
