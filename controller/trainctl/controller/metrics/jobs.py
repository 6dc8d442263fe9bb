"""Job metrics, computed from the persisted states at each scrape: monotonic over a controller's death, never reset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from trainctl.controller.domain.goodput import totals_s
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.metrics import TRAINING
from trainctl.controller.domain.states import TERMINAL, JobPhase
from trainctl.controller.metrics.catalogue import JOB_METRICS, STAGE_HISTOGRAM, Kind
from trainctl.controller.metrics.checkpoints import checkpoint_samples, snapshot_samples, stage_histograms

Sample = tuple[str, tuple[str, ...], float]
LATE_S = 10.0
"""A decision counts from when it was taken, and is shown when it is stored: so much later at most."""


class JobCollector(Collector):
    """Asks for the states and the time when Prometheus asks for the metrics.

    Time in an open interval is shown as it passes. Where a decision that is shown a moment later ended the interval
    earlier, the counter waits until it is reached again: to Prometheus a counter that falls at all began anew.
    """

    def __init__(
        self,
        states: Callable[[], Iterable[JobState]],
        now_s: Callable[[], float],
        since_s: Callable[[], float],
        saves_in_flight: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._states = states
        self._saves_in_flight = saves_in_flight
        self._now_s = now_s
        self._since_s = since_s
        self._served: dict[tuple[str, str, tuple[str, ...]], float] = {}

    def collect(self) -> Iterator[Metric]:
        """One family per job metric; families without a sample are left out."""
        now_s, since_s = self._now_s(), self._since_s()
        states = tuple(self._states())
        samples = self._held(
            [(state.uid, one) for state in states for one in job_samples(state, now_s, since_s=since_s)]
        )
        in_flight = self._saves_in_flight()
        samples += [
            ("trainctl_job_checkpoints_in_flight", (state.shown_name,), float(in_flight[state.uid]))
            for state in states
            if state.uid in in_flight
        ]
        for metric in (one for one in JOB_METRICS if one is not STAGE_HISTOGRAM):
            family_type = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            family = family_type(metric.name, metric.help, labels=metric.labels)
            own = [sample for sample in samples if sample[0] == metric.name]
            for _, labels, value in own:
                family.add_metric(labels, value)
            if own:
                yield family
        stages = HistogramMetricFamily(STAGE_HISTOGRAM.name, STAGE_HISTOGRAM.help, labels=STAGE_HISTOGRAM.labels)
        for labels, buckets, sum_s in (one for state in states for one in stage_histograms(state)):
            stages.add_metric(labels, buckets, sum_s)
        if stages.samples:
            yield stages

    def _held(self, samples: Iterable[tuple[str, Sample]]) -> list[Sample]:
        """Counters of a job (by uid) that fall by what a decision may be late keep the value that was served last."""
        served: dict[tuple[str, str, tuple[str, ...]], float] = {}
        held: list[Sample] = []
        for uid, (name, labels, value) in samples:
            if name in _COUNTERS:
                last = self._served.get((uid, name, labels), value)
                value = served[uid, name, labels] = last if 0 < last - value < LATE_S else value
            held.append((name, labels, value))
        self._served = served
        return held


_COUNTERS = frozenset(metric.name for metric in JOB_METRICS if metric.kind is Kind.COUNTER)


def job_samples(state: JobState, now_s: float, *, since_s: float = 0.0) -> Iterator[Sample]:
    """Every sample of one job: (metric, label values, value). What was not measured is not yielded.

    Args:
        state: of the job.
        now_s: Unix seconds.
        since_s: since when this controller leads beside others. What went to the leader before it comes a little later:
            until then counters that would fall are left out, and so is the step, which would seem to go back.
    """
    name = state.shown_name
    at_s = state.ended_s if state.phase in TERMINAL else now_s
    for phase in JobPhase:
        yield "trainctl_job_phase", (name, phase.value), float(state.phase is phase)
    for bucket, seconds in totals_s(state.goodput, at_s).items():
        yield "trainctl_job_time_seconds_total", (name, bucket), seconds
    yield "trainctl_job_lost_seconds_total", (name,), state.goodput.lost_us / 1e6
    yield "trainctl_job_recoveries_total", (name,), float(state.recovery_count)
    yield "trainctl_job_restarts_total", (name, "user"), float(len(state.restarts.user))
    yield "trainctl_job_restarts_total", (name, "process"), float(state.restarts.total - len(state.restarts.user))
    if state.phase is JobPhase.RUNNING:
        yield "trainctl_job_uptime_seconds", (name,), max(0.0, now_s - state.phase_since_s)
    yield from _progress_samples(state, since_s)
    for island in state.islands:
        yield "trainctl_job_generation", (name, island.id), float(island.generation)
        if island.record is not None and island is state.sole_island:
            yield "trainctl_job_lineage", (name,), float(island.record.lineage)
        for slot_state, count in sorted(Counter(slot.state.value.lower() for slot in island.slots).items()):
            yield "trainctl_job_members", (name, slot_state), float(count)
    yield from _interval_samples(state)
    if state.checkpoints:
        newest = state.checkpoints[-1]
        yield "trainctl_job_checkpoint_step", (name,), float(newest.step)
        if newest.committed_s:
            yield "trainctl_job_checkpoint_age_seconds", (name,), max(0.0, at_s - newest.committed_s)
            yield "trainctl_job_checkpoint_timestamp_seconds", (name,), newest.committed_s
    yield from checkpoint_samples(state)
    yield from snapshot_samples(state, now_s)


def _interval_samples(state: JobState) -> Iterator[Sample]:
    chosen = {"checkpoint": state.checkpoint_interval, "snapshot": state.snapshot_interval}
    for noun, interval in chosen.items():
        if interval is None or state.phase in TERMINAL:
            continue
        yield f"trainctl_job_{noun}_interval_seconds", (state.shown_name,), interval.interval_s
        if interval.waste is not None:
            yield f"trainctl_job_{noun}_waste_ratio", (state.shown_name,), interval.waste


def _progress_samples(state: JobState, since_s: float) -> Iterator[Sample]:
    progress, name = state.progress, state.shown_name
    if not progress.step:
        return
    if progress.updated_s >= since_s or state.phase not in TRAINING:
        yield "trainctl_job_step", (name,), float(progress.step)
        yield "trainctl_job_skipped_steps", (name,), float(progress.skipped)
        if progress.loss is not None:
            yield "trainctl_job_loss", (name,), progress.loss
        if not progress.missed:
            yield "trainctl_job_tokens_total", (name,), float(progress.tokens)
        yield "trainctl_job_samples_total", (name, "committed"), float(progress.cursor)
    if progress.eval_loss is not None:
        yield "trainctl_job_eval_loss", (name,), progress.eval_loss
