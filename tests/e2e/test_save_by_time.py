"""Checkpoints by time, on one real installation: what is chosen, what is done, and what people are shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.ledger import assert_exact_ledger
from e2e.local_system import LocalSystem
from e2e.paced_jobs import SEQUENCES, PacedJobs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
DEADLINE_S = 60


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
    paused = system.wait_phase("chosen", "PAUSED", DEADLINE_S)
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
    done = system.wait_phase("chosen", "SUCCEEDED", DEADLINE_S)
    assert_exact_ledger(system.figures("chosen"), steps=400, sequences=SEQUENCES)
    assert (paused.status.checkpoint.step, done.status.checkpoint.step) == (int(saved[0].fields["step"]), 400)


def words(message: str) -> str:
    """The time that an event of a change begins with."""
    found = re.match(r"a checkpoint every (\S+) instead of every ", message)
    assert found is not None, message
    return found[1]
