"""No controller, no store, or neither, for a while: training goes on all the time, and nothing is missing then.

Without it an outage of the control plane could stop jobs that need nothing of it.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from e2e.counters import Counters
from e2e.paced_jobs import PacedJobs, check_ticks, check_training, ticks
from e2e.shared_system import SharedSystem, lives, shared_system
from e2e.store_history import StoreHistory, broken_jobs, overwritten_events, stale_writes
from trainctl.protos.v1 import job_pb2

pytestmark = pytest.mark.e2e
PAUSE_S = 0.1
STILL_S = 8.0
"""A busy machine may let a job wait so long for its turn."""
SHORT_S = 8.0
"""Longer than a lease lasts, and than it takes to give an agent of the profile ``fast`` up for lost."""
LONG_S = 300.0
OUTAGES = ("controllers", "store", "both")


def begin(system: SharedSystem, what: str) -> None:
    """The outage begins."""
    if what in ("controllers", "both"):
        for one in system.controllers:
            one.kill()
    if what in ("store", "both"):
        system.etcd.stop()


def end(system: SharedSystem, what: str) -> None:
    """It is over."""
    system.etcd.start()
    if what in ("controllers", "both"):
        for one in system.controllers:
            one.start()


def outlive(folder: Path, what: str, outage_s: float, *, profile: str) -> None:
    """Two jobs go through an outage."""
    steps = int(outage_s / PAUSE_S) + 150
    with shared_system(folder, members=3, agents=2, slots=2) as system:
        jobs = PacedJobs(folder / "gate", profile)
        system.submit(jobs.training("train", steps=steps, pause_s=PAUSE_S))
        system.submit(jobs.ticking("tick"))
        with StoreHistory(system.etcd.address(prefix="/chaos")) as history, Counters(system) as counters:
            before = {"train": system.wait_step("train", 3, 60), "tick": system.wait_phase("tick", "RUNNING", 60)}
            pids = [pid for job in before.values() for _, _, pid in lives(job)]
            begin(system, what)
            _watch(before["tick"], outage_s)
            end(system, what)
            for name, job in before.items():
                now = system.wait(name, "heard again", lambda job: job.status.phase == "RUNNING", 60)
                assert lives(now) == lives(job)
            for pid in pids:
                assert Path(f"/proc/{pid}").exists()
            jobs.open()
            for name in before:
                ended = system.wait_phase(name, "SUCCEEDED", 120)
                assert (ended.status.islands[0].generation, len(ended.status.recoveries)) == (1, 0)
            check_training(system, "train", steps=steps, longest_pause_s=STILL_S)
            check_ticks(system.job("tick"))
            batches = history.batches()
            assert stale_writes(batches) == []
            assert overwritten_events(batches) == []
            assert broken_jobs(batches) == []
            assert not counters.fallen


def _watch(job: job_pb2.Job, outage_s: float) -> None:
    """The command counts all the while."""
    end_s = time.monotonic() + outage_s
    counted = len(ticks(job))
    while time.monotonic() < end_s:
        time.sleep(min(STILL_S, max(0.0, end_s - time.monotonic())))
        before, counted = counted, len(ticks(job))
        assert counted > before


@pytest.mark.parametrize(
    "what", [*(pytest.param(one, marks=pytest.mark.chaos) for one in ("controllers", "store")), "both"]
)
def test_a_short_outage(tmp_path: Path, what: str) -> None:
    outlive(tmp_path, what, SHORT_S, profile="fast")


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", OUTAGES)
def test_an_outage_of_five_minutes(tmp_path: Path, what: str) -> None:
    outlive(tmp_path, what, LONG_S, profile="fast")


def test_agents_end_their_workers_when_nobody_comes_for_too_long(tmp_path: Path) -> None:
    """The time is the operator's to choose; until then nothing stops."""
    with shared_system(tmp_path, agents=2, slots=1, flags=("--orphan-timeout", "6s")) as system:
        jobs = PacedJobs(tmp_path / "gate", "fast")
        system.submit(jobs.training("train", steps=2000, pause_s=PAUSE_S, interval_steps=10_000))
        job = system.wait_step("train", 3, 60)
        began_s = time.monotonic()
        for one in system.controllers:
            one.send(signal.SIGKILL)
        codes = [agent.process.wait(60) for agent in system.agent_processes]
        assert time.monotonic() - began_s > 6.0
        assert codes == [0, 0]
        assert "no controller for 6 s" in system.agent_processes[0].log
        saved = sorted((Path(job.status.workdir) / "checkpoints").glob("step-*/*/manifest.json"))
        assert len(saved) == 1, "what was trained is saved before the workers end"
