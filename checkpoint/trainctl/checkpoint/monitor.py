"""What a save or a load cost, rank by rank and stage by stage, and what held it up. Pure; needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from trainctl.core.records.part import CAUSES, PartTimes, storage_kind
from trainctl.core.units import format_bytes

__all__ = ["CAUSES", "LOAD_STAGES", "STAGES", "PartTimes", "bottleneck", "imbalance", "in_wall_time", "rate_bytes"]

STALL, PLAN, MEMORY, FENCE, COPY, CHECKSUM, WRITE, SYNC = (
    "stall", "plan", "memory", "fence", "copy", "checksum", "write", "sync",
)  # fmt: skip
FETCH, READ, VERIFY, DIGEST = "fetch", "read", "verify", "digest"
STAGES: Mapping[str, str] = {
    STALL: "training waited, for whatever",
    PLAN: "deciding who writes what",
    MEMORY: "host memory for the copy: taken from the system, or still used by a save before",
    FENCE: "the next change of the state waited for the copy",
    COPY: "copied to host memory, beside the training where that works",
    CHECKSUM: "checksums of the copied blocks",
    WRITE: "files written, or uploaded",
    SYNC: "files made durable",
}
"""Of a save. The first is what the training noticed of the others."""
LOAD_STAGES: Mapping[str, str] = {
    PLAN: "manifests read, and who reads what",
    FETCH: "files of a snapshot, from other nodes",
    READ: "files read",
    VERIFY: "checksums compared",
    COPY: "put in its place",
    DIGEST: "summed up, to see that all ranks hold the same",
}
"""Of a load, in which training has not begun."""
_STORING = frozenset({WRITE, SYNC})
_SPEAKING = 1.5
"""A rank that takes so many times as long as the median is the reason; below that, the storage is."""


def rate_bytes(part: PartTimes) -> float:
    """Bytes that a rank's storage took or gave in a second; 0 where no time was measured."""
    if part.seconds.get(READ):
        return (part.moved_bytes or part.data_bytes) / part.seconds[READ]
    stored_s = sum(part.seconds.get(stage, 0.0) for stage in _STORING)
    return part.data_bytes / stored_s if stored_s else 0.0


def bottleneck(parts: Sequence[PartTimes], *, uri: str = "") -> str:
    """Which rank and stage took longest, against the median of all ranks; empty if nothing was measured.

    Args:
        parts: of all ranks.
        uri: of the checkpoint; with it, a stage of the storage says which kind of storage that is.
    """
    measured = [
        (seconds, stage, part) for part in parts for stage, seconds in part.seconds.items() if stage not in (STALL, "")
    ]
    if not measured:
        return ""
    longest_s, stage, part = max(measured, key=lambda found: (found[0], -found[2].rank))
    median_s = statistics.median(found.seconds.get(stage, 0.0) for found in parts)
    stores = stage in _STORING or stage == READ
    rate = f" ({format_bytes(int(rate_bytes(part)))}/s)" if stores and rate_bytes(part) else ""
    where = f" on {storage_kind(uri)}" if stores and uri else ""
    said = f"{stage} of rank {part.rank}{where}: {longest_s:.2f} s{rate}"
    if len(parts) == 1:
        return said
    alike = "all ranks alike" if longest_s <= _SPEAKING * median_s else f"the median rank {median_s:.2f} s"
    return f"{said}, {alike}"


def imbalance(parts: Sequence[PartTimes]) -> float:
    """The largest part against the mean of all, in bytes: 1.0 is even; 0 where nothing was written."""
    total = sum(part.data_bytes for part in parts)
    return max(part.data_bytes for part in parts) * len(parts) / total if total else 0.0


def in_wall_time(seconds: Mapping[str, float], wall_s: float) -> Mapping[str, float]:
    """Seconds of several threads at once as shares of the time that passed, so that the stages add up to that."""
    total_s = sum(seconds.values())
    return {stage: wall_s * own_s / total_s for stage, own_s in seconds.items()} if total_s > 0 else {}
