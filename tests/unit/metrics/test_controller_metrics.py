import re
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from trainctl.controller.domain.goodput import Bucket, open_account, switch
from trainctl.controller.domain.job_records import TrainProgress
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.save_interval import CheckpointInterval
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.submit import new_job
from trainctl.controller.metrics.catalogue import CONTROLLER_METRICS, JOB_METRICS
from trainctl.controller.metrics.registry import ControllerMetrics, MetricsServer
from trainctl.core.errors import ConflictError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import JobMetadata, TrainJob


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
