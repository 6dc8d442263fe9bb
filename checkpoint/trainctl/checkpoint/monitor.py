"""What a save cost, rank by rank and stage by stage, and what held it up. Pure; needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainctl.core.units import format_bytes

STALL, COPY, WRITE = "stall", "copy", "write"
STAGES: Mapping[str, str] = {
    STALL: "training waited",
    COPY: "copied to host memory beside the training",
    WRITE: "checksums, files and their sync",
}
_SPEAKING = 1.5
"""A rank that takes so many times as long as the median is the reason; below that, the storage is."""


@dataclass(frozen=True, slots=True)
class PartTimes:
    """One rank's part of a save.

    Attributes:
        rank: the writer.
        data_bytes: tensor bytes that it wrote.
        seconds: by stage; one that is missing took none.
    """

    rank: int
    data_bytes: int
    seconds: Mapping[str, float]

    @property
    def rate_bytes(self) -> float:
        """Bytes written in a second; 0 where no time was measured."""
        return self.data_bytes / self.seconds[WRITE] if self.seconds.get(WRITE) else 0.0


def bottleneck(parts: Sequence[PartTimes]) -> str:
    """Which rank and stage took longest, against the median of all ranks; empty if nothing was measured."""
    measured = [(part.seconds[stage], stage, part) for part in parts for stage in STAGES if stage in part.seconds]
    if not measured:
        return ""
    longest_s, stage, part = max(measured, key=lambda found: (found[0], -found[2].rank))
    median_s = statistics.median(found.seconds.get(stage, 0.0) for found in parts)
    rate = f" ({format_bytes(int(part.rate_bytes))}/s)" if stage == WRITE and part.rate_bytes else ""
    said = f"{stage} of rank {part.rank}: {longest_s:.2f} s{rate}"
    if len(parts) == 1:
        return said
    alike = "all ranks alike" if longest_s <= _SPEAKING * median_s else f"the median rank {median_s:.2f} s"
    return f"{said}, {alike}"
