"""Machines die in the middle: survivors stay, nothing but the open step is repeated, the weights come out the same.

Without it a lost machine could cost more than its step, or change what the job learns.
"""

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.ledger import assert_exact_ledger, assert_same_samples, tensors_of
from e2e.local_system import LocalSystem, tiny_job, workers
from multiproc.armed_faults import ArmedFaults, fault
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.system.faults import FAULTS_VARIABLE
from trainctl.core.system.memory_folder import memory_folder

pytestmark = pytest.mark.e2e
Local = Callable[..., LocalSystem]
STEPS, SEQUENCES = 50, 24


@dataclass
class Reference:
    """The undisturbed run that every disturbed one is held against."""

    system: LocalSystem
    figures: Sequence[Any]
    state: dict[str, bytes]


def final_state(system: LocalSystem, name: str) -> dict[str, bytes]:
    """Parameters and optimizer moments of the last step, as the final checkpoint holds them."""
    checkpoint = system.job(name).status.checkpoint
    assert checkpoint.step == STEPS
    return tensors_of(Path(checkpoint.uri))


@pytest.fixture(scope="module")
def reference(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    home = tmp_path_factory.mktemp("reference")
    system = LocalSystem(home / "local")
    system.up()
    system.submit(tiny_job("undisturbed", corpus, steps=STEPS))
    system.wait_phase("undisturbed", "SUCCEEDED", 90)
    yield Reference(system, system.figures("undisturbed"), final_state(system, "undisturbed"))
    system.down()


def assert_as_if_nothing_happened(reference: Reference, name: str) -> None:
    system = reference.system
    system.wait_phase(name, "SUCCEEDED", 90)
    figures = system.figures(name)
    assert_exact_ledger(figures, steps=STEPS, sequences=SEQUENCES)
    assert_same_samples(figures, reference.figures)
    assert [f.loss for f in figures] == [f.loss for f in reference.figures]
    assert final_state(system, name) == reference.state


def is_whole(job: Any, *, generation: int) -> bool:
    return job.status.phase == "RUNNING" and job.status.islands[0].generation >= generation and len(workers(job)) == 4


def in_chaos(*values: Any) -> list[Any]:
    """Cases of `make chaos`: each differs from one that always runs in what `tests/multiproc` shows of every rank."""
    return [pytest.param(value, marks=pytest.mark.chaos) for value in values]


@pytest.mark.parametrize("ranks", [(0,), (1, 2), *in_chaos((3,), (0, 3))], ids=str)
def test_sigkill_of_workers_with_a_live_peer(
    reference: Reference, corpus: Path, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    system, name = reference.system, f"kill-{'-'.join(map(str, ranks))}"
    system.submit(tiny_job(name, corpus, steps=STEPS))
    before = workers(system.wait_step(name, random.Random(name).randint(3, 15)))
    for rank in ranks:
        os.kill(before[rank].pid, signal.SIGKILL)
    recovered = system.wait(name, "recovery", lambda job: job.status.islands[0].generation >= 2)
    after = workers(system.wait_step(name, recovered.status.step + 1))
    for rank in range(4):
        assert (after[rank].pid == before[rank].pid) == (rank not in ranks), f"rank {rank}"
    assert_as_if_nothing_happened(reference, name)
    (recovery,) = [r for r in system.job(name).status.recoveries if r.phases_s]
    assert recovery.rung == "peer"
    assert recovery.lost_steps == 0
    assert sum(recovery.copied_bytes.values()) > 0


POINTS = ["vote.in", "apply.after", *in_chaos("vote.before", "vote.after", "apply.in", "step.reduce")]


@pytest.mark.parametrize("point", POINTS)
def test_sigkill_at_a_named_point(reference: Reference, corpus: Path, tmp_path: Path, point: str) -> None:
    faults = ArmedFaults(tmp_path, [fault(point, slot=2, step=11)])
    name = "at-" + point.replace(".", "-")
    reference.system.submit(tiny_job(name, corpus, steps=STEPS, env=faults.environment))
    assert_as_if_nothing_happened(reference, name)
    faults.check()


@pytest.mark.parametrize("second", ["restore.send", "rebuild.in", *in_chaos("restore.receive")])
def test_second_failure_while_recovering(reference: Reference, corpus: Path, tmp_path: Path, second: str) -> None:
    faults = ArmedFaults(tmp_path, [fault("vote.after", slot=1, step=9), fault(second, generation=2)])
    name = "second-" + second.replace(".", "-")
    reference.system.submit(tiny_job(name, corpus, steps=STEPS, env=faults.environment))
    assert_as_if_nothing_happened(reference, name)
    faults.check()


def test_sigkill_of_a_whole_agent_that_is_replaced(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    system = reference.system
    system.submit(tiny_job("agent", corpus, steps=STEPS))
    before = workers(system.wait_step("agent", 8))
    os.kill(system.agent_pid("node-1"), signal.SIGKILL)
    recovered = system.wait("agent", "recovery", lambda job: is_whole(job, generation=2))
    after = workers(recovered)
    assert all((after[rank].pid == w.pid) == (w.node == "node-0") for rank, w in before.items())
    assert_as_if_nothing_happened(reference, "agent")


def test_sigkill_of_the_controller(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    system = reference.system
    system.submit(tiny_job("headless", corpus, steps=STEPS))
    before = system.wait_step("headless", 5)
    os.kill(system.controller["pid"], signal.SIGKILL)
    system.up()
    after = system.wait_step("headless", before.status.step + 1)
    assert after.status.islands[0].generation == before.status.islands[0].generation == 1
    assert_as_if_nothing_happened(reference, "headless")
    assert not system.job("headless").status.recoveries
    started = [event.type for event in system.events("headless")].count("worker.starting")
    assert started == 4, "the same processes from the start to the end"


def test_worker_that_dies_while_the_controller_is_away(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    system = reference.system
    system.submit(tiny_job("both", corpus, steps=STEPS))
    before = workers(system.wait_step("both", 5))
    os.kill(system.controller["pid"], signal.SIGKILL)
    os.kill(before[2].pid, signal.SIGKILL)
    system.up()
    assert_as_if_nothing_happened(reference, "both")


def test_frozen_worker_is_found_and_changes_nothing_when_it_wakes(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    system.submit(tiny_job("frozen", corpus, steps=STEPS))
    pid = workers(system.wait_step("frozen", 6))[1].pid
    os.kill(pid, signal.SIGSTOP)
    recovered = system.wait("frozen", "detection", lambda job: job.status.islands[0].generation >= 2)
    assert pid not in {w.pid for w in workers(recovered).values()}
    with pytest.raises(ProcessLookupError):  # condemned, killed, and its exit confirmed before the rebuild
        os.kill(pid, signal.SIGCONT)
    assert_as_if_nothing_happened(reference, "frozen")


def test_all_workers_at_once_come_back_from_the_last_checkpoint(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    system.submit(tiny_job("all", corpus, steps=STEPS, interval_steps=10))
    job = system.wait("all", "a checkpoint", lambda job: job.status.checkpoint.step >= 10)
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGKILL)
    assert_as_if_nothing_happened(reference, "all")
    recovery = system.job("all").status.recoveries[-1]
    assert recovery.rung == "checkpoint"
    assert system.job("all").status.lineage > 1 or system.figures("all")[-1].lineage > system.figures("all")[0].lineage


def in_memory(system: LocalSystem, name: str) -> list[int]:
    """Steps of the snapshots that both nodes completed, with all parts between them."""
    uid = system.job(name).uid
    folders = [memory_folder(system.run_dir / "nodes" / f"node-{number}") for number in (0, 1)]
    held = [{h.snapshot.step: h for h in NodeMemory(folder, uid).held()} for folder in folders]
    both = held[0].keys() & held[1].keys()
    return sorted(step for step in both if {*held[0][step].held, *held[1][step].held} == set(range(4)))


def test_all_workers_at_once_come_back_from_the_snapshot_in_the_nodes_memory(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    """There is no checkpoint before the end; the nodes' memory is given back when there is."""
    system = reference.system
    system.submit(tiny_job("memory", corpus, steps=STEPS), "--set", "spec.checkpoint.snapshots.intervalSteps=5")
    job = system.wait("memory", "a snapshot", lambda job: job.status.snapshot.parts == 4 and len(workers(job)) == 4)
    assert (job.status.snapshot.step % 5, job.status.snapshot.uncopied_parts) == (0, 0)
    assert [(node.node, list(node.parts)) for node in job.status.snapshot.nodes] == [
        ("node-0", [0, 1, 2, 3]),
        ("node-1", [0, 1, 2, 3]),
    ]
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGKILL)
    assert_as_if_nothing_happened(reference, "memory")
    recovery = system.job("memory").status.recoveries[-1]
    assert recovery.rung == "snapshot"
    assert recovery.target_step >= 5
    assert not in_memory(system, "memory")


def test_shrinks_without_a_replacement_in_time_and_grows_again(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    spec = tiny_job("elastic", corpus, steps=600, min_nodes=1, replacement_wait="100ms")
    system.submit(spec)
    system.wait_step("elastic", 6)
    system.cli("nodes", "cordon", "node-1")  # its agent is back soon
    os.kill(system.agent_pid("node-1"), signal.SIGKILL)
    system.wait("elastic", "two workers", lambda job: len(workers(job)) == 2 and job.status.phase == "RUNNING")
    system.cli("nodes", "uncordon", "node-1")
    system.wait("elastic", "four workers", lambda job: len(workers(job)) == 4 and job.status.phase == "RUNNING")
    step = system.job("elastic").status.step
    system.wait_step("elastic", step + 3)
    system.cli("cancel", "elastic", "-y")
    system.wait_phase("elastic", "CANCELLED", 30)
    figures = system.figures("elastic")
    assert_exact_ledger(figures, steps=len(figures), sequences=SEQUENCES)
    shared = min(len(figures), STEPS)
    assert_same_samples(figures[:shared], reference.figures[:shared])
    for ours, theirs in zip(figures[:shared], reference.figures[:shared], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)


def test_user_exception_is_shown_and_not_retried_for_ever(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    system = reference.system
    faults = [fault("step.compute", "raise", slot=1, step=4)]
    system.submit(tiny_job("buggy", corpus, steps=STEPS, env={FAULTS_VARIABLE: json.dumps(faults)}))
    job = system.wait_phase("buggy", "FAILED", 60)
    assert "injected at step.compute" in job.status.error.message
    assert "Traceback" in job.status.error.traceback
    assert "rank 1" in job.status.message
    described = system.cli("describe", "buggy").stdout
    assert "injected at step.compute" in described
    assert job.status.restarts <= 1


def full_disk(*, at_step: int) -> dict[str, str]:
    """The environment of workers of which rank 2 finds the disk full when it saves that step."""
    return {FAULTS_VARIABLE: json.dumps([fault("checkpoint.write", "enospc", rank=2, step=at_step)])}


def test_disk_full_during_a_checkpoint_costs_the_checkpoint_only(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    env = full_disk(at_step=10)
    system.submit(tiny_job("full", corpus, steps=STEPS, interval_steps=10, env=env))
    assert_as_if_nothing_happened(reference, "full")
    failed = [e for e in system.events("full") if e.type == "checkpoint.failed"]
    assert len(failed) == 1
    assert "space" in failed[0].message


def test_a_job_whose_last_state_cannot_be_saved_is_no_success(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    env = full_disk(at_step=20)
    system.submit(tiny_job("unsaved", corpus, steps=20, interval_steps=10, env=env))
    job = system.wait_phase("unsaved", "FAILED", 60)
    assert "did all its steps, but its last state was not saved" in job.status.message
    assert "then submit again" in job.status.hint
    assert "the newest checkpoint is of step 10" in job.status.message
    assert "space" in job.status.message
    (stale,) = [c for c in job.status.conditions if c.type == "CheckpointStale"]
    assert (stale.status, stale.reason) == ("True", "SaveFailed")
    assert "checkpoint of step 20 failed" in stale.message


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    system.submit(tiny_job("damaged", corpus, steps=STEPS, interval_steps=10))
    job = system.wait(
        "damaged", "two checkpoints", lambda job: job.status.checkpoint.step >= 20 and len(workers(job)) == 4
    )
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGSTOP)  # so that no newer checkpoint gets ahead of the damage
    newest = Path(system.job("damaged").status.checkpoint.uri)
    data = max(newest.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    with data.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGKILL)
    assert_as_if_nothing_happened(reference, "damaged")
    (rejected,) = [event for event in system.events("damaged") if event.type == "checkpoint.rejected"]
    assert rejected.reason == "Damaged"
    for part in (str(newest), data.name, "do not have their checksum", "the newest one left is of step "):
        assert part in rejected.message
    assert rejected.fields["attempt"] == newest.name
    decided = [event.message for event in system.events("damaged") if event.type == "recovery.decided"]
    assert any(f"load step {rejected.fields['instead_step']} from" in message for message in decided)
    ended = system.job("damaged").status
    (stale,) = [c for c in ended.conditions if c.type == "CheckpointStale"]
    assert (stale.status, stale.reason) == ("False", "Saved"), "a newer one was saved since"


def test_a_controller_that_was_frozen_does_not_take_silence_for_death(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    system.submit(tiny_job("suspended", corpus, steps=STEPS))
    system.wait_step("suspended", 3)
    pid = system.controller["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        threading.Event().wait(4.0)  # longer than the profile's lost_s: that is what is tested
    finally:
        os.kill(pid, signal.SIGCONT)
    assert_as_if_nothing_happened(reference, "suspended")
    assert not system.job("suspended").status.recoveries


def test_figures_that_an_agent_took_with_it_are_reported_by_the_survivors(
    reference: Reference, corpus: Path, tmp_path: Path
) -> None:
    system = reference.system
    for attempt in range(2):
        name = f"reporter-{attempt}"
        system.submit(tiny_job(name, corpus, steps=STEPS))
        before = workers(system.wait_step(name, 8 + 5 * attempt))
        threading.Event().wait(0.08 * attempt)  # at different times between two heartbeats
        os.kill(system.agent_pid(before[0].node), signal.SIGKILL)
        assert_as_if_nothing_happened(reference, name)


def test_agent_that_dies_while_it_starts_a_worker(local: Local, corpus: Path, tmp_path: Path) -> None:
    faults = ArmedFaults(tmp_path / "marks", [fault("agent.before_start", node="node-1", slot=3)])
    system = local(env=faults.environment)
    system.submit(tiny_job("unlucky", corpus, steps=10))
    system.wait_phase("unlucky", "SUCCEEDED", 90)
    assert_exact_ledger(system.figures("unlucky"), steps=10, sequences=SEQUENCES)
    faults.check()
