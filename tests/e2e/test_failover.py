"""Two controllers, one etcd, real agents: leaders are killed and frozen, and the job does not notice.

Without it the loss of a controller could stop training, though a second one stands by.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.invariants import (
    assert_events_explain,
    assert_generations_rise,
    assert_states_only_go_forward,
    assert_time_adds_up,
)
from e2e.ledger import assert_exact_ledger
from e2e.network import Condition
from e2e.paced_jobs import SEQUENCES, PacedJobs
from e2e.shared_system import SharedSystem, lives, shared_system
from trainctl.protos.v1 import job_pb2

pytestmark = pytest.mark.e2e
STEPS, PAUSE_S = 200, 0.1


def test_leaders_come_and_go_and_the_job_does_not_notice(tmp_path: Path) -> None:
    with shared_system(tmp_path) as system:
        first = system.leader()
        jobs = PacedJobs(tmp_path / "gate", "fast")
        system.submit(jobs.training("steady", steps=STEPS, pause_s=PAUSE_S, interval_steps=20, per_node=2))
        job = system.wait_step("steady", 10)
        seen, workers = [job], lives(job)
        first.send(signal.SIGKILL)
        first.wait()
        second = system.leader()
        assert second is not first
        first.start()
        seen.append(system.wait_step("steady", 40))
        second.send(signal.SIGSTOP)
        assert system.leader(other_than=second) is first
        seen.append(system.wait_step("steady", 80))
        second.send(signal.SIGCONT)
        seen.append(system.wait_step("steady", 120))
        assert lives(seen[-1]) == workers
        first.send(signal.SIGTERM)
        assert first.wait() == 0
        jobs.open()
        end = system.wait_phase("steady", "SUCCEEDED", 90)
        assert end.status.islands[0].generation == 1
        assert list(end.status.recoveries) == []
        assert_states_only_go_forward([*seen, end])
        events = system.events("steady")
        assert_events_explain(events, [*seen, end])
        assert len({event.epoch for event in events}) >= 3, "three leaders wrote it"
        assert [event.epoch for event in events] == sorted(event.epoch for event in events)
        check_leaders([event for event in events if event.type == "leader.changed"], system)
        assert_time_adds_up(end)
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        assert_generations_rise(events)
        assert not [e for e in events if e.type in ("worker.lost", "worker.condemned", "agent.lost")]
        assert_exact_ledger(system.figures("steady"), steps=STEPS, sequences=SEQUENCES)
        assert "steady" in system.ask("get", "jobs", "-o", "name")
        check_trace(json.loads(system.ask("timeline", "steady", "-o", "chrome-trace")), end)


def test_a_leader_that_no_agent_has_reported_to_marks_what_it_shows(tmp_path: Path) -> None:
    with shared_system(tmp_path) as system:
        first = system.leader()
        jobs = PacedJobs(tmp_path / "gate", "balanced")
        system.submit(jobs.training("steady", steps=STEPS, pause_s=PAUSE_S, interval_steps=STEPS))
        before = system.wait_step("steady", 30)
        assert (before.status.step_stale, before.status.figures_stale) == (False, False)
        (second,) = (one for one in system.controllers if one is not first)
        wire = system.to_controllers[system.controllers.index(second)]
        wire.hurt(Condition.CUT)
        first.kill()
        assert system.leader() is second
        old = system.job("steady").status
        assert (old.step_stale, old.figures_stale) == (True, True)
        assert old.step < before.status.step
        assert old.figures_as_of_s <= before.status.figures_as_of_s
        assert "@" in system.ask("get", "jobs").splitlines()[1]
        assert "waiting for the agents" in system.ask("describe", "steady")
        wire.heal()
        told = system.wait("steady", "told by an agent", lambda job: not job.status.step_stale, 60)
        assert told.status.step >= before.status.step
        new = system.wait("steady", "told of figures", lambda job: not job.status.figures_stale, 60)
        assert new.status.figures_as_of_s > old.figures_as_of_s
        assert "@" not in system.ask("get", "jobs")
        jobs.open()
        end = system.wait_phase("steady", "SUCCEEDED", 90)
        assert (end.status.islands[0].generation, end.status.step_stale) == (1, False)


def check_leaders(told: Sequence[job_pb2.Event], system: SharedSystem) -> None:
    """Each of the three changes is told once, by the leader that it is about, and how long nobody led."""
    assert [event.fields["epoch"] for event in told] == ["2", "3", "4"]
    assert [event.epoch for event in told] == [2, 3, 4]
    a, b = {one.address for one in system.controllers}
    addresses = [event.fields["address"] for event in told]
    assert addresses in ([a, b, a], [b, a, b])
    assert [event.fields["former_address"] for event in told] == [b if one == a else a for one in addresses]
    killed, frozen, asked = (float(event.fields["vacant_s"]) for event in told)
    assert max(killed, frozen) < 30.0
    assert asked < 5.0, "it said when it ended"
    assert all("workers go on without a leader" in event.message for event in told)
    assert all(event.message in system.ask("timeline", "steady") for event in told)


def check_trace(trace: dict[str, Any], job: job_pb2.Job) -> None:
    """Its phases follow each other without a gap from the submission to the end."""
    spans = [one for one in trace["traceEvents"] if one.get("cat") == "phase"]
    assert [one["name"] for one in spans] == ["QUEUED", "ADMITTED", "STARTING", "RUNNING", "COMPLETING"]
    assert spans[0]["ts"] == 0
    assert all(a["ts"] + a["dur"] == b["ts"] for a, b in itertools.pairwise(spans))
    assert spans[-1]["ts"] + spans[-1]["dur"] == pytest.approx(job.status.wall_s * 1e6, abs=1e6)
