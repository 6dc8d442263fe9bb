"""Faults of the whole control plane under running jobs: none of them notices, nothing is lost, nobody writes late.

Without it a bad day of the control plane could cost training.

``TRAINCTL_CHAOS_SEEDS=7,12 make chaos`` runs exactly those seeds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.control_faults import ControlFaults, Fault, script_of
from e2e.counters import Counters
from e2e.invariants import assert_events_explain, assert_generations_rise, assert_time_adds_up
from e2e.paced_jobs import PacedJobs, check_ticks, check_training, ticks
from e2e.shared_system import SharedSystem, lives, shared_system
from e2e.store_history import StoreHistory, broken_jobs, overwritten_events, stale_writes
from trainctl.protos.v1 import job_pb2

pytestmark = pytest.mark.e2e
QUOTA_BYTES = 48 << 20
WORST = ("worker.lost", "worker.condemned", "worker.exited", "agent.lost")
GATE_S = 180.0
STILL_S = 8.0
"""A busy machine may let a job wait so long for its turn; that it waited for a controller would take longer."""


def survive(
    folder: Path, script: Sequence[Fault], *, trainings: int, commands: int, agents: int, steps: int, pause_s: float
) -> None:
    """Runs the jobs, carries the script out, and checks everything afterwards."""
    slots = -(-(2 * trainings + commands) // agents)
    flags = [f"--quota-backend-bytes={QUOTA_BYTES}"]
    with shared_system(folder, members=3, agents=agents, slots=slots, etcd_flags=flags) as system:
        jobs = PacedJobs(folder / "gate")
        names = [f"train-{n}" for n in range(trainings)] + [f"tick-{n}" for n in range(commands)]
        with StoreHistory(system.etcd.address(prefix="/chaos")) as history, Counters(system) as counters:
            for name in names:
                is_training = name.startswith("train")
                system.submit(jobs.training(name, steps=steps, pause_s=pause_s) if is_training else jobs.ticking(name))
            before = {name: system.wait(name, "running", _is_on_its_way, 60) for name in names}
            faults = ControlFaults(system, history)
            try:
                faults.run(script)
                _check_alive(system, before)
                jobs.open()
                ended = {name: system.wait_phase(name, "SUCCEEDED", GATE_S) for name in names}
                _check_history(history)
                _check_jobs(system, before, ended, steps=steps)
                assert not counters.fallen, counters.fallen[:5]
            except BaseException as error:
                error.add_note("\n".join(["what was done:", *faults.done]))
                raise


def _is_on_its_way(job: job_pb2.Job) -> bool:
    return job.status.phase == "RUNNING" and (bool(ticks(job)) or job.status.step > 0)


def _check_alive(system: SharedSystem, before: dict[str, job_pb2.Job]) -> None:
    """With all faults healed somebody leads, and every worker is the one it was."""
    system.leader()
    for name, job in before.items():
        now = system.job(name)
        assert now.status.islands[0].generation == 1, f"{name}: {now.status.message}"
        assert lives(now) == lives(job), name


def _check_history(history: StoreHistory) -> None:
    batches = history.batches()
    assert stale_writes(batches) == []
    assert overwritten_events(batches) == []
    assert broken_jobs(batches) == []


def _check_jobs(
    system: SharedSystem, before: dict[str, job_pb2.Job], ended: dict[str, job_pb2.Job], *, steps: int
) -> None:
    for name, job in ended.items():
        assert job.status.islands[0].generation == 1
        assert (len(job.status.recoveries), job.status.restarts) == (0, 0), name
        events = system.events(name)
        assert [e.message for e in events if e.type in WORST and e.reason != "Expected"] == []
        assert_events_explain(events, [before[name], job])
        assert_generations_rise(events)
        assert_time_adds_up(job)
        assert job.status.wall_s == pytest.approx(job.status.end_time_s - job.create_time_s, abs=1.0)
        if name.startswith("train"):
            check_training(system, name, steps=steps, longest_pause_s=STILL_S)
        else:
            check_ticks(job)


def test_a_few_faults_of_the_control_plane(tmp_path: Path) -> None:
    script = [
        Fault("freeze_leader", 0.2, 4.0, 0.1),
        Fault("kill_member", 0.5, 3.0, 0.4),
        Fault("silence_store", 2.0, 3.0, 0.2),
        Fault("kill_leader", 1.0, 1.0, 0.3),
        Fault("fill_disk", 3.0, 2.0, 0.3),
    ]
    survive(tmp_path, script, trainings=1, commands=2, agents=2, steps=400, pause_s=0.08)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [int(s) for s in os.environ.get("TRAINCTL_CHAOS_SEEDS", "1,2").split(",")])
def test_many_faults_under_twenty_jobs(seed: int, tmp_path: Path) -> None:
    script = script_of(seed, 30)
    print(f"control plane, seed {seed}:", *script, sep="\n  ", flush=True)
    survive(tmp_path, script, trainings=3, commands=17, agents=4, steps=3000, pause_s=0.1)
