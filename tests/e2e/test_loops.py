"""Loops of people's own (docs/examples/loops): few lines changed, and they survive what the built-in loop survives.

Without it the examples for loops of one's own could be broken, or lose steps in a recovery.
"""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.local_system import LocalSystem
from trainctl.protos.v1 import job_pb2
from trainctl.protos.v1.records_pb2 import StepFigures

pytestmark = pytest.mark.e2e
LOOPS = Path(__file__).parents[2] / "docs" / "examples" / "loops"
PAGE = LOOPS.parents[1] / "howto" / "loops.md"
STEPS = 60


def job_file(name: str, loop: str, *, nodes: int, per_node: int) -> str:
    return f"""
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {{name: {name}}}
spec:
  command: [python, {LOOPS / loop}.py]
  launch: {{mode: session}}
  nodes: {{min: 1, max: {nodes}}}
  resources: {{workersPerNode: {per_node}, threadsPerWorker: 1}}
  checkpoint: {{intervalSteps: 10}}
  recovery: {{profile: fast}}
"""


def figures(system: LocalSystem, name: str) -> dict[int, StepFigures]:
    found = system.call("ListFigures", job_pb2.ListFiguresRequest(tenant="default", name=name, limit=1000)).figures
    assert [one.step for one in found] == list(range(1, STEPS + 1))
    return {one.step: one for one in found}


def finish(system: LocalSystem, name: str) -> job_pb2.Job:
    job = next(job for job in system.watch(name, 120) if job.status.phase in ("SUCCEEDED", "FAILED"))
    assert job.status.phase == "SUCCEEDED", f"{job.status.message}\n{job.status.error}"
    return job


@pytest.mark.parametrize("loop", ["plain", "fsdp2", "trainer"])
def test_a_loop_survives_a_kill(system: LocalSystem, loop: str) -> None:
    system.submit(job_file(f"{loop}-alone", loop, nodes=1, per_node=1))
    finish(system, f"{loop}-alone")
    name = f"{loop}-killed"
    system.submit(job_file(name, loop, nodes=2, per_node=2))
    job = next(job for job in system.watch(name, 90) if job.status.step >= 15)
    assert job.status.total_steps == STEPS
    os.kill(job.status.islands[0].workers[1].pid, signal.SIGKILL)
    job = finish(system, name)
    (recovery,) = job.status.recoveries
    assert recovery.rung == ("peer" if loop == "plain" else "checkpoint")
    undisturbed, disturbed = figures(system, f"{loop}-alone"), figures(system, name)
    for step, figure in undisturbed.items():
        assert disturbed[step].sample_digest == figure.sample_digest
        assert disturbed[step].loss == pytest.approx(figure.loss, rel=1e-4)


def test_a_frozen_rank_of_a_model_that_shards_itself_is_found(system: LocalSystem) -> None:
    # Everybody waits for it inside torch's own collectives: its silence has to be told from theirs.
    system.submit(job_file("fsdp2-frozen", "fsdp2", nodes=2, per_node=2))
    job = next(job for job in system.watch("fsdp2-frozen", 90) if job.status.step >= 15)
    worker = job.status.islands[0].workers[2]
    os.kill(worker.pid, signal.SIGSTOP)
    job = finish(system, "fsdp2-frozen")
    (recovery,) = job.status.recoveries
    assert list(recovery.slots) == [worker.slot]
    assert "no sign of life" in recovery.fault
    figures(system, "fsdp2-frozen")


def test_a_planned_change_of_a_model_that_shards_itself_repeats_nothing(system: LocalSystem) -> None:
    system.submit(job_file("fsdp2-scaled", "fsdp2", nodes=2, per_node=2))
    job = next(job for job in system.watch("fsdp2-scaled", 90) if job.status.step >= 13)
    system.cli("scale", "fsdp2-scaled", "--max", "1")
    job = finish(system, "fsdp2-scaled")
    assert len(job.status.islands[0].workers) == 2
    assert sum(recovery.lost_steps for recovery in job.status.recoveries) == 0
    assert job.status.goodput_s["recompute"] == 0
    figures(system, "fsdp2-scaled")


def changed_lines(before: Sequence[str], after: Sequence[str]) -> int:
    """As one reads a diff: of each place, the lines that went or those that came, whichever are more."""
    places = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(old_end - old, new_end - new) for what, old, old_end, new, new_end in places if what != "equal")


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ("abcd", "abcd", 0),
        ("abcd", "ad", 2),
        ("ad", "abcd", 2),
        ("abcd", "axyzd", 3),
        ("abcd", "xbcy", 2),
        ("", "ab", 2),
    ],
)
def test_lines_are_counted_that_came_went_or_were_replaced(before: str, after: str, count: int) -> None:
    assert changed_lines(before, after) == count


@pytest.mark.parametrize("loop", ["plain", "fsdp2", "trainer"])
def test_the_change_is_less_than_20_lines_and_as_many_as_the_docs_say(loop: str) -> None:
    before, after = ((LOOPS / f"{loop}{part}.py").read_text().splitlines() for part in ("_before", ""))
    changed = changed_lines(before, after)
    assert changed < 20
    row = next(line for line in PAGE.read_text().splitlines() if f"[{loop}_before.py]" in line)
    assert row.endswith(f"| {changed} |")


@pytest.mark.parametrize("script", ["plain_before", "plain", "fsdp2", "trainer"])
def test_a_loop_runs_alone_and_says_what_is_missing(script: str) -> None:
    done = run([f"{script}.py"])
    assert "trained 60 steps" in done.stdout
    assert ("no agent: this process trains alone" in done.stderr) != script.endswith("before")


@pytest.mark.parametrize("script", ["fsdp2_before", "trainer_before"])
def test_what_a_sharded_loop_was_made_from_runs_under_torchrun(script: str) -> None:
    done = run(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"{script}.py"])
    assert done.stdout.count("trained 60 steps") == 2


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A program of Python in the folder of the examples, to its good end."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for each other on busy cores take minutes
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=LOOPS, env=env, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('hello')", "the program ended without a session"),
        ("from trainctl.parallel.session import Session\nSession.open()", "to its last step"),
        ("import sys\nsys.exit(3)", "ended with exit code 3"),
        ("def f():\n    raise KeyError('weights')\nf()", "weights"),
    ],
)
def test_a_program_that_does_not_train_is_explained(
    system: LocalSystem, tmp_path: Path, text: str, message: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(text)
    name = f"bad-{abs(hash(text)) % 10**6}"
    spec = job_file(name, "plain", nodes=1, per_node=1).replace(str(LOOPS / "plain.py"), str(script))
    system.submit(spec.replace("profile: fast", "profile: fast, maxRestarts: {user: 0}"))
    job = next(job for job in system.watch(name, 60) if job.status.phase in ("SUCCEEDED", "FAILED"))
    assert job.status.phase == "FAILED"
    assert message in job.status.error.message + job.status.message
    if "KeyError" in text:
        assert "in f" in job.status.error.traceback
