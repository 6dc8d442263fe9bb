"""Regions as JSON values, for ranks that tell each other what they hold."""

from __future__ import annotations

from typing import Any

from trainctl.checkpoint.layout.region import Box, Flat, Region


def to_plain(region: Region) -> list[Any]:
    """``[start, stop]`` of a flat range, ``[offsets, lengths]`` of a box."""
    return [region.start, region.stop] if isinstance(region, Flat) else [list(region.offsets), list(region.lengths)]


def from_plain(plain: list[Any]) -> Region:
    """What ``to_plain`` was given."""
    first, second = plain
    return Flat(first, second) if isinstance(first, int) else Box(tuple(first), tuple(second))
