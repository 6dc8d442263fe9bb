"""Without it dashboards would show time that does not add up, values nobody measured, or counters that go back."""

import re
import time
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from trainctl.controller.domain.checkpoint_figures import CheckpointFigures, failed, load_of, loaded, saved
from trainctl.controller.domain.goodput import Bucket, open_account, switch
from trainctl.controller.domain.job_records import TrainProgress
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.save_interval import CheckpointInterval
from trainctl.controller.domain.snapshots import NodeShare, SnapshotFigures
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.submit import new_job
from trainctl.controller.metrics.catalogue import CONTROLLER_METRICS, JOB_METRICS
from trainctl.controller.metrics.registry import ControllerMetrics, MetricsServer
from trainctl.core.errors import ConflictError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.part import PartTimes
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.records.spec import JobMetadata, TrainJob
from trainctl.core.records.worker import CheckpointReport, LoadReport


def job() -> JobState:
    return new_job("u", TrainJob(metadata=JobMetadata(name="a")), workdir="w", now_s=100.0)[0]


def text(state: JobState, now_s: float) -> str:
    return generate_latest(ControllerMetrics(lambda: [state], lambda: now_s).registry).decode()


def test_time_buckets_add_up_to_the_age_of_the_job() -> None:
    found = re.findall(r'trainctl_job_time_seconds_total\{bucket="\w+",job_name="a"\} (\S+)', text(job(), 142.5))
    assert sum(map(float, found)) == pytest.approx(42.5)


def test_what_was_not_measured_is_absent() -> None:
    served = text(job(), 101.0)
    for name in ("trainctl_job_step{", "trainctl_job_loss", "trainctl_job_checkpoint_step", "trainctl_agent_sessions "):
        assert name not in served
    trained = replace(job(), progress=TrainProgress(step=3, loss=0.0, tokens=30, cursor=12))
    assert 'trainctl_job_loss{job_name="a"} 0.0' in text(trained, 101.0)
    assert 'trainctl_job_samples_total{job_name="a",outcome="committed"} 12.0' in text(trained, 101.0)


def test_uptime_counts_from_the_last_start_and_only_while_all_run() -> None:
    running = replace(job(), phase=JobPhase.RUNNING, phase_since_s=120.0)
    assert 'trainctl_job_uptime_seconds{job_name="a"} 22.5' in text(running, 142.5)
    assert "trainctl_job_uptime_seconds{" not in text(replace(running, phase=JobPhase.RECOVERING), 142.5)


def test_the_age_of_the_newest_checkpoint_stops_with_the_job() -> None:
    ref = CheckpointRef(uri="u", step=20, lineage=1, attempt="x", manifest_sha256="d", committed_s=130.0)
    saved = replace(job(), checkpoints=(replace(ref, step=10, committed_s=110.0), ref))
    assert 'trainctl_job_checkpoint_age_seconds{job_name="a"} 12.5' in text(saved, 142.5)
    ended = replace(saved, phase=JobPhase.SUCCEEDED, ended_s=131.0)
    assert 'trainctl_job_checkpoint_age_seconds{job_name="a"} 1.0' in text(ended, 142.5)


def test_the_time_between_checkpoints_is_shown_while_there_will_be_more() -> None:
    chosen = CheckpointInterval(interval_s=60.0, reason="r", since_s=101.0)
    first = replace(job(), phase=JobPhase.RUNNING, checkpoint_interval=chosen)
    assert 'trainctl_job_checkpoint_interval_seconds{job_name="a"} 60.0' in text(first, 142.5)
    assert "trainctl_job_checkpoint_waste_ratio{" not in text(first, 142.5)
    measured = replace(first, checkpoint_interval=replace(chosen, waste=0.0125))
    assert 'trainctl_job_checkpoint_waste_ratio{job_name="a"} 0.0125' in text(measured, 142.5)
    ended = text(replace(measured, phase=JobPhase.SUCCEEDED, ended_s=131.0), 142.5)
    assert not re.search(r"trainctl_job_checkpoint_(interval|waste)_\w+\{", ended)
    assert "trainctl_job_checkpoint_interval_seconds{" not in text(job(), 142.5)
    in_memory = text(replace(job(), phase=JobPhase.RUNNING, snapshot_interval=replace(chosen, waste=0.02)), 142.5)
    assert 'trainctl_job_snapshot_interval_seconds{job_name="a"} 60.0' in in_memory
    assert 'trainctl_job_snapshot_waste_ratio{job_name="a"} 0.02' in in_memory
    assert "trainctl_job_checkpoint_interval_seconds{" not in in_memory


def test_a_counter_waits_where_a_decision_ended_its_interval_a_moment_earlier() -> None:
    shown, now_s = job(), 110.0
    registry = ControllerMetrics(lambda: [shown], lambda: now_s).registry

    def seconds(bucket: str) -> float:
        served = generate_latest(registry).decode()
        found = re.findall(rf'trainctl_job_time_seconds_total\{{bucket="{bucket}",job_name="a"\}} (\S+)', served)
        return float(found[0])

    assert seconds("queued") == 10.0
    shown = replace(shown, goodput=switch(shown.goodput, Bucket.BOOTING, 109.5))  # decided then, stored only now
    assert (seconds("queued"), seconds("checking")) == (10.0, 0.5)
    shown, now_s = replace(shown, goodput=switch(shown.goodput, Bucket.QUEUED, 111.0)), 112.0
    assert (seconds("queued"), seconds("checking")) == (10.5, 1.5)
    shown = replace(shown, uid="another of that name", goodput=open_account(112.0))
    assert seconds("queued") == 0.0


def test_snapshots_are_shown_while_the_job_trains() -> None:
    figures = SnapshotFigures(
        newest=SnapshotRef(lineage=1, step=15, attempt="x"), complete_s=130.0, parts=2, generation=2, made=3,
        nodes=(NodeShare(node="a", parts=(0, 1), size_bytes=30), NodeShare(node="b", parts=(1,), size_bytes=12)),
        stopped="full", cause="no_room", outcomes={"made": 40, "storage": 1},
    )  # fmt: skip
    trains = replace(job(), phase=JobPhase.RUNNING, snapshot_figures=figures)
    counted = [f'snapshots_total{{job_name="a",outcome="{o}"}} {n}' for o, n in
               (("made", 43.0), ("no_room", 1.0), ("storage", 1.0))]  # fmt: skip
    gauges = [f'snapshot_{what}{{job_name="a"}} {value}' for what, value in
              (("step", 15.0), ("age_seconds", 12.5), ("bytes", 42.0), ("uncopied_parts", 1.0))]  # fmt: skip
    served = text(trains, 142.5)
    assert all(f"trainctl_job_{line}" in served for line in (*counted, *gauges)), served
    unknown = text(replace(trains, snapshot_figures=replace(figures, complete_s=0.0)), 142.5)
    assert "trainctl_job_snapshot_age_seconds{" not in unknown
    for state in (replace(trains, phase=JobPhase.SUCCEEDED, ended_s=140.0), replace(trains, phase=JobPhase.PAUSED)):
        ended = text(state, 142.5)
        assert "trainctl_job_snapshot_" not in ended
        assert all(f"trainctl_job_{line}" in ended for line in counted)
    assert "trainctl_job_snapshot" not in text(job(), 142.5)


def test_a_new_leader_counts_no_snapshots_before_it_has_heard_the_workers() -> None:
    figures = SnapshotFigures(generation=1, made=3, epoch=1)
    told = replace(job(), phase=JobPhase.RUNNING, snapshot_figures=figures, epoch=2)
    assert "trainctl_job_snapshots_total{" not in text(told, 142.5)
    heard = replace(told, snapshot_figures=replace(figures, made=5, epoch=2))
    assert 'trainctl_job_snapshots_total{job_name="a",outcome="made"} 5.0' in text(heard, 142.5)


def saved_and_loaded() -> JobState:
    """Two saves of four ranks, one that failed, and a load of two ranks."""
    figures = CheckpointFigures()
    for step, slow_s in ((10, 2.0), (20, 5.0)):
        parts = tuple(PartTimes(rank, 100, {"write": slow_s if rank == 3 else 0.5}) for rank in range(4))
        report = CheckpointReport(
            job_uid="u", island="i", generation=1, step=step, lineage=1, parts=parts, seal_s=0.02, size_bytes=400,
            pool_bytes=200,
        )  # fmt: skip
        figures = saved(figures, report, "s3://b/c")
    lost = CheckpointReport(job_uid="u", island="i", generation=1, step=30, lineage=1, error="full", cause="storage")
    figures = failed(figures, lost)
    read = LoadReport(
        uri="/c", step=10, seconds=1.0, parts=tuple(PartTimes(rank, 100, {"read": 0.4}, 104, rank) for rank in range(2))
    )
    load = load_of(read, generation=2, now_s=1.0)
    ref = CheckpointRef(uri="u", step=20, lineage=1, attempt="x", manifest_sha256="d", committed_s=130.0)
    return replace(job(), checkpoint_figures=loaded(figures, load, read.parts), checkpoints=(ref,))


def test_saves_and_loads_by_stage() -> None:
    served = text(saved_and_loaded(), 142.5)
    stage = 'trainctl_job_checkpoint_stage_seconds_{}{{direction="{}",job_name="a",{}stage="{}"}} {}'
    for expected in (
        stage.format("bucket", "save", 'le="0.3",', "write", "0.0"),
        stage.format("bucket", "save", 'le="1",', "write", "6.0"),
        stage.format("bucket", "save", 'le="3",', "write", "7.0"),
        stage.format("bucket", "save", 'le="+Inf",', "write", "8.0"),
        stage.format("count", "save", "", "write", "8.0"),
        stage.format("sum", "save", "", "write", "10.0"),
        stage.format("count", "save", "", "seal", "2.0"),
        stage.format("count", "load", "", "read", "2.0"),
        'trainctl_job_checkpoint_healed_reads_total{job_name="a"} 1.0',
    ):
        assert expected in served, expected
    newest = (
        'trainctl_job_checkpoint_newest_stage_seconds{{direction="save",job_name="a",quantile="{}",stage="write"}} {}'
    )
    assert newest.format("0.5", "0.5") in served
    assert newest.format("1", "5.0") in served
    for name, value in (
        ('bytes_total{direction="save",job_name="a",storage="s3"}', 800.0),
        ('bytes_total{direction="load",job_name="a",storage="file"}', 208.0),
        ('failures_total{cause="storage",job_name="a"}', 1.0),
        ('imbalance_ratio{job_name="a"}', 1.0),
        ('read_amplification_ratio{job_name="a"}', 1.04),
        ('pool_bytes{job_name="a"}', 200.0),
        ('timestamp_seconds{job_name="a"}', 130.0),
        ('verify_failures_total{job_name="a"}', 0.0),
    ):
        assert f"trainctl_job_checkpoint_{name} {value}" in served, name


def test_every_checkpoint_metric_of_the_catalogue_is_served_and_none_of_a_job_that_saved_nothing() -> None:
    chosen = CheckpointInterval(interval_s=60.0, reason="r", since_s=101.0, waste=0.0125)
    by_time = replace(saved_and_loaded(), phase=JobPhase.RUNNING, checkpoint_interval=chosen)
    registry = ControllerMetrics(lambda: [by_time], lambda: 142.5, saves_in_flight=lambda: {"u": 1}).registry
    served = generate_latest(registry).decode()
    for metric in JOB_METRICS:
        if metric.name.startswith("trainctl_job_checkpoint"):
            assert f"# TYPE {metric.name} {metric.kind.value}" in served
    assert "trainctl_job_checkpoint" not in text(job(), 142.5)


def test_saves_in_flight_are_of_the_jobs_that_run() -> None:
    counts = {"u": 2}
    registry = ControllerMetrics(lambda: [job()], lambda: 101.0, saves_in_flight=lambda: counts).registry
    assert 'trainctl_job_checkpoints_in_flight{job_name="a"} 2.0' in generate_latest(registry).decode()
    counts.clear()
    assert "trainctl_job_checkpoints_in_flight{" not in generate_latest(registry).decode()


def test_no_label_collides_with_prometheus_or_grows_without_bound() -> None:
    for metric in (*JOB_METRICS, *CONTROLLER_METRICS):
        assert not {"job", "instance", "rank", "pod", "le"} & set(metric.labels), metric.name
        assert metric.help.endswith("."), metric.name


def test_served_over_http_and_a_taken_port_is_said_so() -> None:
    metrics = ControllerMetrics(list, lambda: 0.0)
    metrics.inc("trainctl_heartbeats_total")
    metrics.set("trainctl_agent_sessions", 2)
    metrics.observe("trainctl_recovery_seconds", 1.5, phase="total")
    server = MetricsServer(metrics, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as answer:
            served = answer.read().decode()
        assert "trainctl_heartbeats_total 1.0" in served
        assert "trainctl_agent_sessions 2.0" in served
        assert "_created" not in served
        with pytest.raises(ConflictError, match="cannot serve metrics on 127"):
            MetricsServer(metrics, "127.0.0.1", int(server.address.rsplit(":", 1)[1]))
    finally:
        server.close()


def test_a_server_that_nobody_asks_is_closed_at_once() -> None:
    took_s = []
    for _ in range(4):
        server = MetricsServer(ControllerMetrics(list, lambda: 0.0), "127.0.0.1", 0)
        began_s = time.monotonic()
        server.close()
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 0.25, "left alone, it looks up twice a second"
