"""What the saves and loads of a job took, added up over its life: for metrics, and for whoever asks later. Pure.

Kept with the job, so that what is counted never falls, whoever leads.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trainctl.core.records.part import CAUSES, LOAD_STAGES, OTHER, SAVE_STAGES, PartTimes, storage_kind
from trainctl.core.records.worker import CheckpointReport, LoadReport
from trainctl.core.units import format_bytes

STAGE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper bounds of the counts in the store: another list would need other names of metrics."""
QUANTILES = (0.5, 0.9, 1.0)
SEAL, PUBLISH = "seal", "publish"
"""Stages of a whole save: its root manifest is written, and a leader hears of it."""
TRANSFERS_KEPT, PARTS_KEPT = 4, 16
"""Newest saves and newest loads of a job, and ranks of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds:
    """One stage, over all ranks and checkpoints.

    Attributes:
        counts: how often it took up to each of ``STAGE_BUCKETS_S`` and no less; last, longer.
        sum_s: of all of them.
        newest_s: the ``QUANTILES`` over the ranks of the newest checkpoint.
    """

    counts: tuple[int, ...] = (0,) * (len(STAGE_BUCKETS_S) + 1)
    sum_s: float = 0.0
    newest_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFigures:
    """All saves, or all loads, of a job.

    Attributes:
        stages: by stage.
        bytes_moved: bytes by the kind of the storage.
    """

    stages: Mapping[str, StageSeconds] = field(default_factory=dict[str, StageSeconds])
    bytes_moved: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load of a checkpoint, or of a snapshot, by the ranks of a generation (message ``Load``).

    Attributes:
        generation: whose ranks.
        step: of the state.
        uri: of the checkpoint; ``snapshot://...`` of a snapshot in the memory of the nodes.
        seconds: until the last rank had it.
        ranks: how many read.
        data_bytes: that all of them wanted.
        moved_bytes: that the storage was asked for.
        parts: of the ranks that took longest.
        bottleneck: which rank, stage and storage it waited for longest.
        loaded_s: when the report of it came, Unix seconds.
        healed_reads: blocks and manifests that came with wrong bytes and were right when they were read again.
    """

    generation: int
    step: int
    uri: str
    seconds: float
    ranks: int = 0
    data_bytes: int = 0
    moved_bytes: int = 0
    parts: tuple[PartTimes, ...] = ()
    bottleneck: str = ""
    loaded_s: float = 0.0
    healed_reads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One checkpoint that was committed, as the ranks of a generation saved it (message ``Save``).

    Attributes:
        generation: whose ranks.
        step: of the state.
        lineage: in which it was.
        uri: of the checkpoint.
        seconds: from the step boundary at which it was begun until it was complete.
        stall_s: how much of that training waited, on the rank that waited longest.
        seal_s: from the last part until the root manifest was there.
        ranks: how many wrote.
        data_bytes: that all of them wrote.
        parts: of the ranks that took longest.
        bottleneck: which rank, stage and storage it waited for longest.
        saved_s: when it was complete, Unix seconds.
    """

    generation: int
    step: int
    lineage: int
    uri: str
    seconds: float
    stall_s: float = 0.0
    seal_s: float = 0.0
    ranks: int = 0
    data_bytes: int = 0
    parts: tuple[PartTimes, ...] = ()
    bottleneck: str = ""
    saved_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFigures:
    """Of one job.

    Attributes:
        saves: those that were committed.
        loads: all from storage.
        failures: saves that failed, by cause.
        failed: generation and step of the newest of them: a report that comes twice counts once.
        imbalance: largest part of the newest save against the mean, in bytes; 0 before there was one.
        amplification: bytes read by the newest load for each that was wanted; 0 before there was one.
        refused: checkpoints that a worker found damaged; one that was accepted again and is refused anew counts anew.
        pool_bytes: host memory that copies of the state occupy, on the rank where it is most.
        healed_reads: blocks and manifests that loads found right only when they read them again.
    """

    saves: TransferFigures = field(default_factory=TransferFigures)
    loads: TransferFigures = field(default_factory=TransferFigures)
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    failed: tuple[int, ...] = ()
    refused: int = 0
    imbalance: float = 0.0
    amplification: float = 0.0
    pool_bytes: int = 0
    healed_reads: int = 0


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def saved(figures: CheckpointFigures, report: CheckpointReport, uri: str) -> CheckpointFigures:
    """With one more checkpoint that was committed."""
    once = {SEAL: [report.seal_s], PUBLISH: [max(0.0, report.age_s)]} if report.parts else {}
    seconds = {**_by_stage(report.parts, SAVE_STAGES), **once}
    saves = _with(figures.saves, seconds, storage_kind(uri), report.size_bytes)
    total = sum(part.data_bytes for part in report.parts)
    imbalance = max(part.data_bytes for part in report.parts) * len(report.parts) / total if total else 0.0
    return replace(figures, saves=saves, imbalance=imbalance, pool_bytes=report.pool_bytes)


def failed(figures: CheckpointFigures, report: CheckpointReport) -> CheckpointFigures:
    """With one more save that failed."""
    which = (report.generation, report.step)
    if which == figures.failed:
        return figures
    cause = report.cause if report.cause in CAUSES else OTHER
    failures = {**figures.failures, cause: figures.failures.get(cause, 0) + 1}
    return replace(figures, failures=failures, failed=which)


def loaded(figures: CheckpointFigures, load: Load, parts: Sequence[PartTimes]) -> CheckpointFigures:
    """With one more load, of which these are all parts."""
    loads = _with(figures.loads, _by_stage(parts, LOAD_STAGES), storage_kind(load.uri), load.moved_bytes)
    amplification = load.moved_bytes / load.data_bytes if load.data_bytes else 0.0
    healed_reads = figures.healed_reads + load.healed_reads
    return replace(figures, loads=loads, amplification=amplification, healed_reads=healed_reads)


def load_of(report: LoadReport, *, generation: int, now_s: float) -> Load:
    """What is kept of a report."""
    return Load(
        generation=generation,
        step=report.step,
        uri=report.uri,
        seconds=report.seconds,
        ranks=len(report.parts),
        data_bytes=sum(part.data_bytes for part in report.parts),
        moved_bytes=sum(part.moved_bytes for part in report.parts),
        parts=_slowest(report.parts),
        bottleneck=report.bottleneck,
        loaded_s=now_s,
        healed_reads=sum(max(0, part.healed_reads) for part in report.parts),
    )


def save_of(report: CheckpointReport, uri: str, *, complete_s: float) -> Save:
    """What is kept of the report of a checkpoint that lies there, and was complete then (Unix seconds)."""
    return Save(
        generation=report.generation,
        step=report.step,
        lineage=report.lineage,
        uri=uri,
        seconds=report.seconds,
        stall_s=report.stall_s,
        seal_s=report.seal_s,
        ranks=len(report.parts),
        data_bytes=sum(part.data_bytes for part in report.parts),
        parts=_slowest(report.parts),
        bottleneck=report.bottleneck,
        saved_s=complete_s,
    )


def part_fields(parts: Iterable[PartTimes]) -> dict[str, str]:
    """Ranks as fields of an event: ``{"rank_3": "12.0 MiB, read 0.210 s, verify 0.020 s"}``."""
    return {
        f"rank_{part.rank}": ", ".join(
            (format_bytes(part.data_bytes), *(f"{stage} {took_s:.3f} s" for stage, took_s in part.seconds.items()))
        )
        for part in parts
    }


def _slowest(parts: Iterable[PartTimes]) -> tuple[PartTimes, ...]:
    """``PARTS_KEPT`` of them that took longest, by rank."""
    slowest = sorted(parts, key=lambda part: (-sum(part.seconds.values()), part.rank))[:PARTS_KEPT]
    return tuple(sorted(slowest, key=lambda part: part.rank))


def _by_stage(parts: Iterable[PartTimes], known: Sequence[str]) -> dict[str, list[float]]:
    """What workers of other versions call otherwise is one stage more; what is no time at all is none."""
    found: dict[str, list[float]] = {}
    for part in parts:
        for stage, seconds in part.seconds.items():
            if math.isfinite(seconds) and seconds >= 0:
                found.setdefault(stage if stage in known else OTHER, []).append(seconds)
    return found


def _with(
    figures: TransferFigures, seconds: Mapping[str, Sequence[float]], storage: str, size_bytes: int
) -> TransferFigures:
    stages = {**figures.stages, **{s: _longer(figures.stages.get(s, StageSeconds()), v) for s, v in seconds.items()}}
    moved = {**figures.bytes_moved, storage: figures.bytes_moved.get(storage, 0) + size_bytes}
    return TransferFigures(stages=stages, bytes_moved=moved)


def _longer(stage: StageSeconds, seconds: Sequence[float]) -> StageSeconds:
    counts = list(stage.counts)
    for one_s in seconds:
        counts[bisect_left(STAGE_BUCKETS_S, one_s)] += 1
    newest_s = tuple(round(quantile(seconds, share), 6) for share in QUANTILES)
    return StageSeconds(counts=tuple(counts), sum_s=round(stage.sum_s + sum(seconds), 6), newest_s=newest_s)
