"""What an operator does to jobs and nodes that live, on one real installation; nothing that was trained gets lost.

Without it a drain, a resize or a restart could cost steps, or never end.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from e2e.ledger import assert_exact_ledger, assert_same_samples, tensors_of
from e2e.local_system import LocalSystem, tiny_job, workers
from e2e.paced_jobs import SEQUENCES as PACED_SEQUENCES
from e2e.paced_jobs import PacedJobs
from waiting import PATIENCE_S

pytestmark = pytest.mark.e2e
STEPS, SEQUENCES = 100, 24
PACED_STEPS, PAUSE_S = 250, 0.2


@pytest.fixture(scope="module")
def undisturbed(system: LocalSystem, corpus: Path) -> list[Any]:
    system.submit(tiny_job("undisturbed", corpus, steps=STEPS))
    system.wait_phase("undisturbed", "SUCCEEDED", PATIENCE_S)
    return system.figures("undisturbed")


def state_of(system: LocalSystem, name: str) -> dict[str, bytes]:
    checkpoint = system.job(name).status.checkpoint
    assert checkpoint.step == STEPS
    return tensors_of(Path(checkpoint.uri))


def assert_as_undisturbed(system: LocalSystem, name: str, undisturbed: list[Any]) -> None:
    system.wait_phase(name, "SUCCEEDED", PATIENCE_S)
    figures = system.figures(name)
    assert_exact_ledger(figures, steps=STEPS, sequences=SEQUENCES)
    assert_same_samples(figures, undisturbed)
    assert [f.loss for f in figures] == [f.loss for f in undisturbed]
    assert state_of(system, name) == state_of(system, "undisturbed")


def types(system: LocalSystem, name: str) -> list[str]:
    return [event.type for event in system.events(name)]


def pids(job: Any) -> set[int]:
    return {worker.pid for worker in workers(job).values()}


def test_pause_gives_the_slots_back_and_resume_loses_nothing(
    system: LocalSystem, corpus: Path, undisturbed: list[Any]
) -> None:
    system.submit(tiny_job("rests", corpus, steps=STEPS))
    system.wait_step("rests", 15)
    system.cli("pause", "rests")
    paused = system.wait_phase("rests", "PAUSED", PATIENCE_S)
    assert not any(node.slots_used for node in system.nodes())
    assert paused.status.checkpoint.step == paused.status.step >= 15
    again = system.cli("pause", "rests")
    assert "PAUSED already" in again.stdout
    refused = system.cli("restart", "rests", check=False)
    assert refused.returncode == 6
    assert "trainctl resume rests" in refused.stderr
    system.cli("resume", "rests")
    assert_as_undisturbed(system, "rests", undisturbed)
    ended = system.job("rests")
    assert ended.status.goodput_s["paused"] > 0
    assert ended.status.goodput_s.get("recompute", 0) == 0
    assert sum(ended.status.goodput_s.values()) == pytest.approx(ended.status.wall_s, abs=1e-3)


def test_restart_gives_new_processes_and_loses_nothing(
    system: LocalSystem, corpus: Path, undisturbed: list[Any]
) -> None:
    system.submit(tiny_job("anew", corpus, steps=STEPS))
    before = system.wait_step("anew", 15)
    first = json.loads(system.cli("restart", "anew", "--request-id", "once", "-o", "json").stdout)
    after = system.wait(
        "anew", "new processes", lambda job: len(workers(job)) == 4 and not pids(job) & pids(before), PATIENCE_S
    )
    assert {w.node for w in workers(after).values()} == {w.node for w in workers(before).values()}
    again = json.loads(system.cli("restart", "anew", "--request-id", "once", "-o", "json").stdout)
    assert first["uid"] == again["uid"]
    assert_as_undisturbed(system, "anew", undisturbed)
    assert types(system, "anew").count("job.restart_requested") == 1
    assert all(recovery.lost_steps == 0 for recovery in system.job("anew").status.recoveries)


def test_rollback_goes_back_in_a_new_lineage(system: LocalSystem, corpus: Path, undisturbed: list[Any]) -> None:
    job = tiny_job("back", corpus, steps=STEPS, interval_steps=10)
    # All are kept: the one before the newest must still be there when the roll-back asks for it.
    system.submit(job.replace("intervalSteps: 10", "intervalSteps: 10\n    keep: {last: 50}"))
    system.wait("back", "a checkpoint", lambda job: job.status.checkpoint.step >= 10, PATIENCE_S)
    missing = system.cli("rollback", "back", "--to-step", "7", "-y", check=False)  # early: the job must not end before
    assert missing.returncode == 6
    assert "there are those of" in missing.stderr
    before = system.wait("back", "three checkpoints", lambda job: job.status.checkpoint.step >= 30, PATIENCE_S)
    target = before.status.checkpoint.step - 10
    system.cli("rollback", "back", "--to-step", str(target), "-y")
    after = system.wait("back", "a new lineage", lambda job: job.status.lineage == 2, PATIENCE_S)
    assert pids(after) == pids(before), "no process was restarted"
    no_terminal = system.cli("rollback", "back", check=False)
    assert no_terminal.returncode == 2
    assert all(f.lineage == 2 or f.step <= target for f in system.figures("back"))
    assert_as_undisturbed(system, "back", undisturbed)
    assert any(recovery.target_step == target for recovery in system.job("back").status.recoveries)
    ended = system.cli("rollback", "back", "-y", check=False)
    assert ended.returncode == 6
    assert "resumeFrom" in ended.stderr


def test_a_job_shrinks_and_grows_at_step_boundaries(system: LocalSystem, tmp_path: Path) -> None:
    jobs = PacedJobs(tmp_path / "gate", "fast")
    system.submit(jobs.training("elastic", steps=PACED_STEPS, pause_s=PAUSE_S, nodes=(1, 2), per_node=2))
    before = system.wait_step("elastic", 3)
    wrong = system.cli("scale", "elastic", "--min", "3", check=False)
    assert wrong.returncode == 2
    assert "spec.nodes.min" in wrong.stderr
    too_many = system.cli("scale", "elastic", "--max", "20", check=False)
    assert "micro-batches" in too_many.stderr
    system.cli("scale", "elastic", "--max", "1")
    small = system.wait("elastic", "two workers", lambda job: len(workers(job)) == 2, PATIENCE_S)
    assert pids(small) < pids(before)
    system.wait("elastic", "a free node", lambda job: sum(n.slots_used for n in system.nodes()) == 2, PATIENCE_S)
    system.cli("scale", "elastic", "--max", "2")
    large = system.wait(
        "elastic", "four workers", lambda job: len(workers(job)) == 4 and job.status.phase == "RUNNING", PATIENCE_S
    )
    assert pids(small) < pids(large)
    scaled = [event.fields for event in system.events("elastic") if event.type == "job.scaled"]
    assert [(f["from"][0], f["to"][0]) for f in scaled] == [("2", "1"), ("1", "2")]
    jobs.open()
    system.wait_phase("elastic", "SUCCEEDED", PATIENCE_S)
    assert_exact_ledger(system.figures("elastic"), steps=PACED_STEPS, sequences=PACED_SEQUENCES)
    # On a machine that starves an agent for 3 s, the profile takes it for lost: that is another recovery, not this one.
    shrunk = next(one for one in system.job("elastic").status.recoveries if one.planned)
    assert (shrunk.lost_steps, dict(shrunk.copied_bytes)) == (0, {}), system.cli("events", "elastic").stdout


def test_a_node_is_drained_and_gets_work_again(system: LocalSystem, tmp_path: Path) -> None:
    jobs = PacedJobs(tmp_path / "gate", "fast")
    system.submit(jobs.training("moved", steps=PACED_STEPS, pause_s=PAUSE_S, nodes=(1, 1), per_node=2))
    before = system.wait_step("moved", 3)
    (node,) = {worker.node for worker in workers(before).values()}
    drained = system.cli("drain", node, "--wait", timeout_s=PATIENCE_S)
    assert "is empty" in drained.stdout
    moved = system.wait("moved", "another node", lambda job: job.status.phase == "RUNNING" and len(workers(job)) == 2)
    assert {worker.node for worker in workers(moved).values()} == {f"node-{1 - int(node[-1])}"}
    assert "DRAINING" in system.cli("nodes", "list").stdout
    assert "none" in system.cli("nodes", "describe", node).stdout
    other = next(iter(workers(moved).values())).node
    stuck = system.cli("drain", other)
    assert "another node" in stuck.stdout
    assert system.job("moved").status.phase == "RUNNING"
    for name in (node, other):
        system.cli("uncordon", name)
    jobs.open()
    system.wait_phase("moved", "SUCCEEDED", PATIENCE_S)
    assert_exact_ledger(system.figures("moved"), steps=PACED_STEPS, sequences=PACED_SEQUENCES)
    assert all(r.lost_steps == 0 for r in system.job("moved").status.recoveries)
    assert system.cli("cordon", "node-9", check=False).returncode == 3


def test_a_paused_job_outlives_the_controller(system: LocalSystem, corpus: Path, undisturbed: list[Any]) -> None:
    system.submit(tiny_job("patient", corpus, steps=STEPS))
    system.wait_step("patient", 10)
    system.cli("pause", "patient")
    os.kill(int(system.controller["pid"]), 9)
    system.up()
    system.wait_phase("patient", "PAUSED", PATIENCE_S)
    system.cli("resume", "patient")
    assert_as_undisturbed(system, "patient", undisturbed)


def test_top_shows_jobs_and_workers(system: LocalSystem, tmp_path: Path) -> None:
    jobs = PacedJobs(tmp_path / "gate", "fast")
    system.submit(jobs.training("looked-at", steps=2000, pause_s=PAUSE_S, per_node=2))
    system.wait_step("looked-at", 3)
    line = next(line for line in system.cli("top").stdout.splitlines() if line.startswith("looked-at"))
    assert "RUNNING" in line
    assert "ago" in line
    rows = system.cli("top", "looked-at").stdout.splitlines()
    assert rows[1].split() == ["RANK", "NODE", "STATE", "DOING", "STEP", "RSS", "AGE", "PID"]
    assert [row.split()[0] for row in rows[2:]] == ["0", "1", "2", "3"]
    assert all("MiB" in row for row in rows[2:])
    system.cli("cancel", "looked-at", "-y")
    system.wait_phase("looked-at", "CANCELLED", PATIENCE_S)


def test_delete_leaves_nothing_of_the_job_and_all_of_the_others(
    system: LocalSystem, corpus: Path, undisturbed: list[Any]
) -> None:
    system.submit(tiny_job("goes", corpus, steps=2000, interval_steps=5))
    job = system.wait("goes", "a checkpoint", lambda job: job.status.checkpoint.step >= 5, PATIENCE_S)
    living = system.cli("delete", "goes", "-y", check=False)
    assert living.returncode == 6
    assert "--force" in living.stderr
    assert any(job.uid in str(path) for path in system.run_dir.rglob("*.log"))
    system.cli("delete", "goes", "--force", "-y", timeout_s=PATIENCE_S)
    assert system.cli("get", "job", "goes", check=False).returncode == 3
    assert not Path(job.status.workdir).exists()
    assert not (system.run_dir / "figures" / f"{job.uid}.jsonl").exists()
    left = set()
    for _ in system.watch("undisturbed", 5.0):
        left = {path for path in system.run_dir.rglob("*") if job.uid in str(path)}
        if not left:
            break
    assert not left
    assert state_of(system, "undisturbed")


def test_a_pinned_checkpoint_outlives_those_after_it_and_another_is_removed(
    system: LocalSystem, tmp_path: Path
) -> None:
    jobs = PacedJobs(tmp_path / "gate", "fast")

    def steps() -> list[int]:
        found = json.loads(system.cli("checkpoints", "list", "pins", "-o", "json").stdout)
        return [checkpoint["step"] for checkpoint in found["checkpoints"]]

    system.submit(jobs.training("pins", steps=2000, pause_s=0.1, interval_steps=10))
    system.wait("pins", "a checkpoint", lambda job: job.status.checkpoint.step >= 10, PATIENCE_S)
    first = steps()[0]
    system.cli("checkpoints", "pin", "pins", "--step", str(first))
    system.wait("pins", "newer ones", lambda job: job.status.checkpoint.step >= first + 60, PATIENCE_S)
    told = json.loads(system.cli("checkpoints", "describe", "pins", "--step", str(first), "-o", "json").stdout)
    assert told["pinned"]
    assert told["job"] == system.job("pins").uid
    verified = system.cli("checkpoints", "verify", "pins", "--step", str(first))
    assert f"the checkpoint of step {first} is whole" in verified.stdout
    assert system.cli("checkpoints", "rm", "pins", "--step", str(first), "-y", check=False).returncode == 6
    system.cli("checkpoints", "unpin", "pins", "--step", str(first))
    system.cli("pause", "pins")
    system.wait_phase("pins", "PAUSED", PATIENCE_S)
    kept = steps()
    newest = system.cli("checkpoints", "rm", "pins", "--step", str(kept[-1]), "-y", check=False)
    assert newest.returncode == 6
    assert "is the newest" in newest.stderr
    system.cli("checkpoints", "rm", "pins", "--step", str(kept[0]), "-y")
    assert steps() == kept[1:]
    folders = {path.name for path in (Path(told["uri"]).parent.parent).iterdir()}
    assert f"step-{kept[0]:012d}" not in folders
    damage_is_refused(system, "pins", kept[1:])
    system.cli("delete", "pins", "--force", "-y", timeout_s=PATIENCE_S)


def damage_is_refused(system: LocalSystem, name: str, steps: list[int]) -> None:
    """What verify finds is the job's no longer, whoever is asked: the controller, or the folder alone."""

    def states(place: str) -> list[tuple[int, str]]:
        told = json.loads(system.cli("checkpoints", "list", place, "-o", "json").stdout)
        return [(one["step"], one["state"]) for one in (*told["checkpoints"], *told["refused"])]

    newest = Path(system.job(name).status.checkpoint.uri)
    data = max(newest.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    whole = data.read_bytes()
    data.write_bytes(whole[:-8] + bytes(byte ^ 255 for byte in whole[-8:]))
    found = system.cli("checkpoints", "verify", name, check=False)
    assert found.returncode == 6
    assert f"{data} is corrupt" in found.stderr
    assert states(name) == [*((step, "committed") for step in steps[:-1]), (steps[-1], "refused")]
    assert states(str(newest.parents[1]))[-1] == (steps[-1], "refused")
    (stale,) = [c for c in system.job(name).status.conditions if c.type == "CheckpointStale"]
    assert (stale.status, stale.reason) == ("True", "Damaged")
    assert any(e.type == "checkpoint.rejected" and data.name in e.message for e in system.events(name))
    data.write_bytes(whole)
    system.cli("checkpoints", "verify", name, "--step", str(steps[-1]), "--accept")
    assert states(name) == [(step, "committed") for step in steps]
    assert states(str(newest.parents[1]))[-1] == (steps[-1], "committed")
