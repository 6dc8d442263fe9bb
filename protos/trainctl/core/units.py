"""Durations, times and sizes as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from trainctl.core.texts import quoted, shortened

_DURATION = re.compile(r"(?P<value>[0-9]{1,9}(?:\.[0-9]{1,9})?)(?P<unit>ms|s|m|h|d)")
_SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def parse_duration_s(text: str) -> float:
    """Seconds in a text such as ``500ms``, ``30s``, ``5m``, ``2h`` or ``1d``.

    Raises:
        ValueError: the text is not one number with one of these units.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f'expected a duration such as 500ms, 30s, 5m, 2h or 1d (one number, one unit), found "{shortened(text)}"'
        )
    return float(match["value"]) * _SECONDS[match["unit"]]


def format_time(unix_s: float) -> str:
    """A Unix time for people: ``2026-01-31 12:00:00 UTC``."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(seconds: float) -> str:
    """A duration for people: ``0.42s``, ``12s``, ``3m20s``, ``2h05m``, ``3d04h``."""
    if seconds < 10:
        return f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def parse_bytes(text: str) -> int:
    """Bytes in a size such as ``2GiB``, ``512MiB`` or ``4096``.

    Raises:
        ValueError: it is not one.
    """
    match = re.fullmatch(r"(\d+)\s*([KMGT]i?B?|B|)", text.strip())
    if match is None or (match[2] and match[2] != "B" and "i" not in match[2]):
        raise ValueError(f"expected a size such as 2GiB or 512MiB, found {quoted(text)}")
    return int(match[1]) << (10 * " KMGT".index(match[2][0]) if match[2] and match[2] != "B" else 0)


def format_bytes(size_bytes: float) -> str:
    """A size for people, in binary units: ``512 B``, ``1.5 MiB``."""
    value = float(size_bytes)
    for unit in _BINARY[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_BINARY[-1]}"


def format_count(number: int, noun: str) -> str:
    """A number of things for people: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
