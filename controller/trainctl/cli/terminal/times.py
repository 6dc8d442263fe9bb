"""Times as people and as machines read them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted
from trainctl.core.units import format_duration, parse_duration_s


def rfc3339(unix_s: float) -> str:
    """``2026-01-31T12:00:00.123Z``: milliseconds, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(unix_s: float, now_s: float) -> str:
    """``12:00:00`` in the machine's time zone; with the date, ``2026-01-31 12:00:00``, where that is not today's."""
    moment, now = (datetime.fromtimestamp(time_s, UTC).astimezone() for time_s in (unix_s, now_s))
    return moment.strftime("%H:%M:%S" if moment.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def age(unix_s: float, now_s: float) -> str:
    """How long ago: ``12s``, ``3m20s``; ``-`` for a time that is not set."""
    return rough(max(now_s - unix_s, 0)) if unix_s else "-"


def rough(seconds: float) -> str:
    """A duration in whole seconds or coarser: ``4s``, ``3m20s``."""
    return format_duration(round(seconds)).replace(".00s", "s")


def span(seconds: float) -> str:
    """A duration that is not an age; ``-`` when it is not known."""
    return format_duration(seconds) if seconds > 0 else "-"


def since(text: str | None) -> float:
    """Unix seconds of ``--since``: an age such as ``10m``, or an RFC 3339 time; 0 if it was not given.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return 0.0
    try:
        return max(time.time() - parse_duration_s(text), 0.001)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return max(moment.timestamp(), 0.001)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"--since: expected an age such as 10m or a time such as 2026-01-31T12:00:00Z, found {quoted(text)}",
        hint="for example --since 10m",
    )
