"""Checkpoints and snapshots by time, on one real installation: what is chosen, done, and shown to people.

Without it a job could save far too often or too seldom, and nobody would be told why.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from e2e.ledger import assert_exact_ledger
from e2e.local_system import LocalSystem
from e2e.paced_jobs import SEQUENCES, PacedJobs
from trainctl.protos.v1 import job_pb2
from waiting import PATIENCE_S

pytestmark = pytest.mark.e2e


def test_the_interval_is_chosen_by_what_a_checkpoint_costs_and_told_to_everybody(
    system: LocalSystem, tmp_path: Path
) -> None:
    jobs = PacedJobs(gate=tmp_path / "gate")
    text = jobs.training("chosen", steps=400, pause_s=0.05, interval_steps=1, per_node=1)
    system.submit(text, "--set", "spec.checkpoint.interval=auto")
    system.wait_step("chosen", 5)
    first = system.job("chosen").status.checkpoint_interval
    assert (first.interval_s, first.HasField("cost_s")) == (60.0, False)
    system.cli("pause", "chosen")
    paused = system.wait_phase("chosen", "PAUSED", PATIENCE_S)
    saved = [event for event in system.events("chosen") if event.type == "checkpoint.committed"]
    assert len(saved) == 1, "only at the pause: steps are not counted"
    system.cli("resume", "chosen")
    again = system.wait("chosen", "another interval", lambda job: job.status.checkpoint_interval.interval_s > 60, 30)
    chosen = again.status.checkpoint_interval
    assert 0 < chosen.cost_s <= chosen.failures_apart_s
    assert 0 < chosen.waste < 0.01
    events = [event for event in system.events("chosen") if event.type == "checkpoint.interval"]
    assert [event.reason for event in events] == ["First", "Longer"]
    assert chosen.reason in events[1].message
    assert f"every {words(events[1].message)}: {chosen.reason}" in system.cli("describe", "chosen").stdout
    assert chosen.reason in system.cli("explain", "chosen").stdout
    shown = json.loads(system.cli("get", "job", "chosen", "-o", "json").stdout)
    assert shown["status"]["checkpointInterval"]["intervalS"] == chosen.interval_s
    jobs.open()
    done = system.wait_phase("chosen", "SUCCEEDED", PATIENCE_S)
    assert_exact_ledger(system.figures("chosen"), steps=400, sequences=SEQUENCES)
    assert (paused.status.checkpoint.step, done.status.checkpoint.step) == (int(saved[0].fields["step"]), 400)


def test_snapshots_are_made_as_often_as_pays_and_a_loss_of_all_goes_back_to_one(
    system: LocalSystem, tmp_path: Path
) -> None:
    jobs = PacedJobs(gate=tmp_path / "gate")
    text = jobs.training("in-memory", steps=400, pause_s=0.05, interval_steps=0, per_node=1)
    system.submit(text, "--set", "spec.checkpoint.snapshots.interval=auto")
    system.wait_step("in-memory", 5)
    first = system.job("in-memory").status.snapshot_interval
    assert (first.interval_s, first.HasField("cost_s")) == (10.0, False)
    job = system.wait("in-memory", "what one costs", lambda job: job.status.snapshot_interval.HasField("cost_s"), 30)
    chosen = job.status.snapshot_interval
    assert (job.status.snapshot.parts, job.status.snapshot.uncopied_parts, job.status.snapshot.made) == (2, 0, 1)
    assert 0 < chosen.cost_s < chosen.interval_s < chosen.failures_apart_s
    events = [event for event in system.events("in-memory") if event.type == "snapshot.interval"]
    assert [event.reason for event in events] == ["First", "Longer"]
    assert f"every {words(events[1].message)}: {chosen.reason}" in system.cli("describe", "in-memory").stdout
    assert chosen.reason in system.cli("explain", "in-memory").stdout
    shown = json.loads(system.cli("get", "job", "in-memory", "-o", "json").stdout)
    assert shown["status"]["snapshotInterval"]["intervalS"] == chosen.interval_s
    for worker in (worker for island in job.status.islands for worker in island.workers):
        os.kill(worker.pid, signal.SIGKILL)
    again = system.wait("in-memory", "another snapshot", snapped_again, 30)
    recovery = again.status.recoveries[-1]
    assert recovery.rung == "snapshot"
    assert recovery.target_step >= job.status.snapshot.step
    assert again.status.snapshot_interval.interval_s < chosen.interval_s, "it failed once"
    jobs.open()
    system.wait_phase("in-memory", "SUCCEEDED", PATIENCE_S)


def snapped_again(job: job_pb2.Job) -> bool:
    """There is a snapshot of what was trained since the recovery."""
    recoveries, step = job.status.recoveries, job.status.snapshot.step
    return bool(recoveries) and step > recoveries[-1].target_step > 0


def words(message: str) -> str:
    """The time that an event of a change begins with."""
    found = re.match(r"a (?:checkpoint|snapshot) every (\S+) instead of every ", message)
    assert found is not None, message
    return found[1]
