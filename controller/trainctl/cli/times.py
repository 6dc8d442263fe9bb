"""Times as people and as machines read them."""

from __future__ import annotations

from datetime import UTC, datetime

from trainctl.core.units import format_duration


def rfc3339(unix_s: float) -> str:
    """``2026-01-31T12:00:00.123Z``: milliseconds, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(unix_s: float) -> str:
    """``12:00:00`` in the machine's time zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%H:%M:%S")


def age(unix_s: float, now_s: float) -> str:
    """How long ago: ``12s``, ``3m20s``; ``-`` for a time that is not set."""
    return rough(max(now_s - unix_s, 0)) if unix_s else "-"


def rough(seconds: float) -> str:
    """A duration in whole seconds or coarser: ``4s``, ``3m20s``."""
    return format_duration(round(seconds)).replace(".00s", "s")


def span(seconds: float) -> str:
    """A duration that is not an age; ``-`` when it is not known."""
    return format_duration(seconds) if seconds > 0 else "-"
