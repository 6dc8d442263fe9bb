"""What the saves and loads of a job took, as Prometheus reads it: from what is kept with the job, so it never falls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from trainctl.controller.domain.checkpoint_figures import QUANTILES, STAGE_BUCKETS_S, StageSeconds, TransferFigures
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.metrics import TRAINING

Sample = tuple[str, tuple[str, ...], float]
Histogram = tuple[tuple[str, ...], list[tuple[str, float]], float]
"""Label values, cumulated counts by upper bound, and the sum."""


def checkpoint_samples(state: JobState) -> Iterator[Sample]:
    """Every sample of one job but the histograms; what was not measured is not yielded."""
    name, figures = state.shown_name, state.checkpoint_figures
    for direction, both in _directions(state).items():
        for storage, size_bytes in sorted(both.bytes_moved.items()):
            yield "trainctl_job_checkpoint_bytes_total", (name, direction, storage), float(size_bytes)
        for stage, seconds in sorted(both.stages.items()):
            for share, value_s in zip(QUANTILES, seconds.newest_s, strict=False):
                labels = (name, direction, stage, f"{share:g}")
                yield "trainctl_job_checkpoint_newest_stage_seconds", labels, value_s
    for cause, count in sorted(figures.failures.items()):
        yield "trainctl_job_checkpoint_failures_total", (name, cause), float(count)
    if figures.refused or state.checkpoints:  # from 0 on, so that the first one is seen to rise
        yield "trainctl_job_checkpoint_verify_failures_total", (name,), float(figures.refused)
    if figures.loads.stages:
        yield "trainctl_job_checkpoint_healed_reads_total", (name,), float(figures.healed_reads)
    if figures.imbalance:
        yield "trainctl_job_checkpoint_imbalance_ratio", (name,), figures.imbalance
    if figures.amplification:
        yield "trainctl_job_checkpoint_read_amplification_ratio", (name,), figures.amplification
    if figures.pool_bytes:
        yield "trainctl_job_checkpoint_pool_bytes", (name,), float(figures.pool_bytes)


def snapshot_samples(state: JobState, now_s: float) -> Iterator[Sample]:
    """Of a job's snapshots; how many there were, a new leader knows when it has heard the workers."""
    name, figures = state.shown_name, state.snapshot_figures
    training = state.phase in TRAINING
    if training and figures.newest is not None:
        yield "trainctl_job_snapshot_step", (name,), float(figures.newest.step)
        if figures.complete_s:
            yield "trainctl_job_snapshot_age_seconds", (name,), max(0.0, now_s - figures.complete_s)
        yield "trainctl_job_snapshot_bytes", (name,), float(figures.size_bytes)
        yield "trainctl_job_snapshot_uncopied_parts", (name,), float(figures.uncopied)
    if figures.epoch == state.epoch or not training:
        for outcome, count in figures.so_far.items():
            yield "trainctl_job_snapshots_total", (name, outcome), float(count)


def stage_histograms(state: JobState) -> Iterator[Histogram]:
    """Of one job: each rank's seconds in each stage of each checkpoint."""
    bounds = [*(f"{bound:g}" for bound in STAGE_BUCKETS_S), "+Inf"]
    for direction, both in _directions(state).items():
        for stage, seconds in sorted(both.stages.items()):
            yield (state.shown_name, direction, stage), _cumulated(bounds, seconds), seconds.sum_s


def _directions(state: JobState) -> Mapping[str, TransferFigures]:
    return {"save": state.checkpoint_figures.saves, "load": state.checkpoint_figures.loads}


def _cumulated(bounds: list[str], seconds: StageSeconds) -> list[tuple[str, float]]:
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(seconds.counts), strict=True)]
