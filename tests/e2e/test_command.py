"""``spec.command`` as torchrun would run it: a real DDP script, started, stopped, failed, hung and resized.

Without it a script that runs under torchrun could hang or lose processes here.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.local_system import LocalSystem, workers
from e2e.process_tree import processes_of
from trainctl.core.system.processes import identify, is_alive
from trainctl.protos.v1 import job_pb2
from waiting import until

pytestmark = pytest.mark.e2e
SCRIPTS = Path(__file__).parent / "scripts"
DDP, IN_STEP = "ddp_train.py", "in_step.py"
"""A real DDP script; and one that does without torch where only the processes matter."""
ENDLESS = ("--steps", "100000")
DOCS = Path(__file__).parents[2] / "docs"


def command_job(
    name: str,
    *arguments: str,
    command: tuple[str, ...] = (IN_STEP,),
    nodes: int = 2,
    min_nodes: int | None = None,
    per_node: int = 2,
    hang: Mapping[str, str] | None = None,
    restarts: Mapping[str, int] | None = None,
    workdir: str = str(SCRIPTS),
    replacement_wait: str = "20s",
) -> str:
    launch: dict[str, Any] = {"workdir": workdir} if workdir else {}
    if hang:
        launch["hang"] = dict(hang)
    recovery = {"profile": "fast", "replacementWait": replacement_wait, "maxRestarts": dict(restarts or {})}
    spec = {
        "command": [*command, *arguments],
        "launch": launch,
        "nodes": {"min": min_nodes or nodes, "max": nodes},
        "resources": {"workersPerNode": per_node, "threadsPerWorker": 1},
        "recovery": recovery,
    }
    return yaml.safe_dump({"metadata": {"name": name}, "spec": spec})


def seen(system: LocalSystem, name: str, generation: int | None = None) -> list[dict[str, int]]:
    """What the ranks saw of their environment, in the order they came, as the script wrote it down."""
    path = Path(system.job(name).status.workdir) / "seen.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if generation in (None, line["generation"])]


def trains(system: LocalSystem, name: str, generation: int, ranks: int) -> dict[int, dict[str, int]]:
    """Waits until all ranks of a generation run and rank 0 saved a step there; what each saw."""

    def goes_on() -> bool:
        job = system.job(name)
        state = Path(job.status.workdir) / "state"
        found = seen(system, name, generation)
        begun_ns = (Path(job.status.workdir) / "seen.jsonl").stat().st_mtime_ns if found else 0
        return (
            len(found) == ranks
            and job.status.phase == "RUNNING"
            and state.exists()
            and state.stat().st_mtime_ns > begun_ns
        )

    until(goes_on, lambda: f"generation {generation}: {seen(system, name)}\n{system.diagnosis(name)}")
    return {line["RANK"]: line for line in seen(system, name, generation)}


def command_of(pid: int) -> int:
    """The command that a launcher runs; its guard is a child, too."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if IN_STEP.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError(f"launcher {pid} runs no command")


def ranks_left(system: LocalSystem) -> list[str]:
    """Command lines of the commands that run, and of their guards."""
    names = (DDP, IN_STEP, "guard.py")
    return [p.command for p in processes_of(system.run_dir) if any(name in p.command for name in names)]


def cancel(system: LocalSystem, name: str) -> None:
    """Ends a job; afterwards no process of it is left."""
    system.cli("cancel", name, "-y")
    system.wait_phase(name, "CANCELLED", 40)
    until(lambda: not ranks_left(system), lambda: f"left behind: {ranks_left(system)}")


def events(system: LocalSystem, name: str, type_: str) -> list[job_pb2.Event]:
    return [event for event in system.events(name) if event.type == type_]


def test_a_ddp_script_runs_to_its_end_with_torchruns_environment(system: LocalSystem) -> None:
    system.submit(command_job("plain", "--steps", "15", command=(DDP,)))
    job = system.wait_phase("plain", "SUCCEEDED", 60)
    found = {line["RANK"]: line for line in seen(system, "plain")}
    assert set(found) == {0, 1, 2, 3}
    assert [found[rank]["LOCAL_RANK"] for rank in range(4)] == [0, 1, 0, 1]
    assert [found[rank]["GROUP_RANK"] for rank in range(4)] == [0, 0, 1, 1]
    assert {line["WORLD_SIZE"] for line in found.values()} == {4}
    assert {line["LOCAL_WORLD_SIZE"] for line in found.values()} == {2}
    assert {line["TORCHELASTIC_RESTART_COUNT"] for line in found.values()} == {0}
    assert (job.status.total_steps, job.status.eta_s, job.status.restarts, len(job.status.recoveries)) == (0, 0, 0, 0)
    logs = system.cli("logs", "plain", "--rank", "0").stdout
    assert "step 15 loss" in logs
    described = system.cli("describe", "plain").stdout
    assert "ended with exit code 0 on all ranks" in described
    assert "step 0" not in described
    assert not any(event.type.startswith("checkpoint.") for event in system.events("plain"))


def test_sigkill_of_a_command_a_launcher_and_an_agent(system: LocalSystem) -> None:
    """Each time the command is started again on all ranks, and launchers that live keep their processes."""
    system.submit(command_job("killed", *ENDLESS, per_node=1))
    first = trains(system, "killed", 1, 2)
    before = workers(system.job("killed"))

    os.kill(command_of(before[1].pid), signal.SIGKILL)
    second = trains(system, "killed", 2, 2)
    after = workers(system.job("killed"))
    assert [after[rank].pid == before[rank].pid for rank in range(2)] == [True, False]
    assert not {line["pid"] for line in first.values()} & {line["pid"] for line in second.values()}
    assert {line["TORCHELASTIC_RESTART_COUNT"] for line in second.values()} == {1}
    (recovery,) = system.job("killed").status.recoveries
    assert recovery.rung == "restart"
    assert "worker 1 failed: its command was ended by SIGKILL on node-1" in recovery.fault
    assert recovery.phases_s["total"] > 0

    launcher = after[0].pid
    command = identify(command_of(launcher))
    assert command is not None
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not is_alive(command), "the command outlived its launcher")
    trains(system, "killed", 3, 2)

    os.kill(system.agent_pid("node-1"), signal.SIGKILL)
    generation = system.wait(
        "killed", "a new agent", lambda job: job.status.islands[0].generation >= 4 and len(workers(job)) == 2
    ).status.islands[0].generation  # fmt: skip
    trains(system, "killed", generation, 2)
    job = system.job("killed")
    assert "nothing: the command keeps its state itself" in system.cli("describe", "killed").stdout
    assert job.status.restarts == 3, "one a restart, however many ranks failed after each other"
    explained = system.cli("explain", "killed").stdout
    assert "peer" not in explained
    assert "start 4 of the command" in explained
    assert "rung" not in explained
    decided = events(system, "killed", "recovery.decided")
    assert all("the command is started again on all 2 ranks" in event.message for event in decided)
    cancel(system, "killed")


def test_the_controller_may_die_and_a_pause_stops_the_command(system: LocalSystem) -> None:
    system.submit(command_job("calm", *ENDLESS, per_node=1))
    first = trains(system, "calm", 1, 2)
    os.kill(system.controller["pid"], signal.SIGKILL)
    system.up()
    system.wait("calm", "the next controller", lambda job: job.status.phase == "RUNNING" and len(workers(job)) == 2)
    assert trains(system, "calm", 1, 2) == first, "nobody was disturbed"

    system.cli("pause", "calm")
    system.wait_phase("calm", "PAUSED", 40)
    assert not ranks_left(system)
    system.cli("resume", "calm")
    job = system.wait("calm", "the command again", lambda job: job.status.phase == "RUNNING")
    again = trains(system, "calm", job.status.islands[0].generation, 2)
    assert {line["TORCHELASTIC_RESTART_COUNT"] for line in again.values()} == {1}
    assert system.job("calm").status.restarts == 0
    cancel(system, "calm")


def test_exit_codes_are_tried_again_within_their_budget(system: LocalSystem) -> None:
    arguments = ("--steps", "12", "--behave", "exit:1:4:3:2")
    system.submit(command_job("twice", *arguments, per_node=1, restarts={"user": 2}))
    job = system.wait_phase("twice", "SUCCEEDED", 90)
    assert job.status.restarts == 2
    counts = [line["TORCHELASTIC_RESTART_COUNT"] for line in seen(system, "twice") if line["RANK"] == 0]
    assert counts == [0, 1, 2]


def test_a_budget_that_is_used_up_fails_the_job_and_says_all(system: LocalSystem) -> None:
    arguments = ("--steps", "12", "--behave", "exit:1:4:3:2")
    system.submit(command_job("failing", *arguments, per_node=1, restarts={"user": 1}))
    job = system.wait_phase("failing", "FAILED", 90)
    assert "worker 1 (rank 1) failed: its command ended with exit code 3 on node-1" in job.status.message
    assert "maxRestarts.user (1) is used up" in job.status.message
    assert job.status.error.code == "COMMAND_EXIT"
    assert any("rank 1 does as it was told" in line for line in job.status.error.log_tail)
    assert not ranks_left(system)


@pytest.mark.parametrize(
    ("watch", "words"), [("log", "printed nothing for"), ("heartbeat", "did not touch its heartbeat file for")]
)
def test_a_hang_is_found_and_all_are_started_again(system: LocalSystem, watch: str, words: str) -> None:
    name = f"hang-{watch}"
    arguments = ("--steps", "7", "--pause", "0.3", "--beat", "--behave", "hang:1:3")
    hang = {"watch": watch, "after": "6s"}
    system.submit(command_job(name, *arguments, per_node=1, hang=hang))
    job = system.wait_phase(name, "SUCCEEDED", 120)
    assert (Path(job.status.workdir) / "mark-0").exists(), "it never hung"
    found = [r.fault for r in job.status.recoveries if words in r.fault and "(rank " in r.fault]
    assert any("limit 6s" in fault for fault in found)
    if watch == "heartbeat":  # where output is watched all ranks are silent, and any may be named
        assert any("worker 1 (rank 1) on node-1" in fault for fault in found)
    assert job.status.restarts == len(job.status.recoveries), "on a very busy machine a start may look like a hang, too"
    assert job.status.goodput_s["hang"] > 5


def test_a_command_shrinks_and_grows_with_its_nodes(system: LocalSystem) -> None:
    system.submit(command_job("elastic", *ENDLESS, command=(DDP,), min_nodes=1, per_node=1, replacement_wait="100ms"))
    trains(system, "elastic", 1, 2)
    system.cli("nodes", "cordon", "node-1")  # else its agent may be back before anything is seen of one rank
    os.kill(system.agent_pid("node-1"), signal.SIGKILL)
    small = system.wait("elastic", "one rank", lambda j: len(workers(j)) == 1 and j.status.phase == "RUNNING")
    trains(system, "elastic", small.status.islands[0].generation, 1)
    system.cli("nodes", "uncordon", "node-1")
    big = system.wait(
        "elastic",
        "two ranks again",
        lambda j: (
            len(workers(j)) == 2
            and j.status.phase == "RUNNING"
            and j.status.islands[0].generation > small.status.islands[0].generation
        ),
    )
    trains(system, "elastic", big.status.islands[0].generation, 2)
    sizes = list(dict.fromkeys((line["generation"], line["WORLD_SIZE"]) for line in seen(system, "elastic")))
    assert [size for _, size in sizes] == [2, 1, 2]
    assert {r.rung for r in system.job("elastic").status.recoveries} == {"restart"}
    cancel(system, "elastic")


@pytest.mark.parametrize(
    ("command", "workdir", "words"),
    [
        (("no-such-program",), "", "no program 'no-such-program' in PATH"),
        (("./missing.py",), str(SCRIPTS), "expected the script"),
        ((str(SCRIPTS),), "", "is a folder, expected a program"),
        (("./" + IN_STEP + ".txt",), "{tmp}", "is not executable"),
        (("true",), "/nowhere/at/all", "/nowhere/at/all does not exist"),
    ],
)
def test_what_cannot_be_started_is_not_tried_again(
    system: LocalSystem,
    command: tuple[str, ...],
    workdir: str,
    words: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    (tmp_path / f"{IN_STEP}.txt").write_text("#!/bin/sh\n")
    name = f"unusable-{request.node.callspec.indices['command']}"
    system.submit(command_job(name, command=command, workdir=workdir.format(tmp=tmp_path)))
    job = system.wait_phase(name, "FAILED", 60)
    assert words in job.status.message
    assert "(rank " in job.status.message
    assert " on node-" in job.status.message
    assert job.status.error.code == "COMMAND_UNUSABLE"
    assert job.status.restarts == 0


def test_any_program_will_do_and_a_finished_rank_waits_for_the_others(system: LocalSystem) -> None:
    """Rank 0 is done at once; what it left in its process group ends with it."""
    script = 'if [ "$RANK" = 0 ]; then sleep 1000 & exit 0; fi; echo "rank $RANK of $WORLD_SIZE: $GREETING"; sleep 1'
    spec = command_job("shell", "-c", script, command=("sh",), workdir="").replace(
        "spec:", "spec:\n  env: {GREETING: hi}"
    )
    system.submit(spec)
    system.wait_phase("shell", "SUCCEEDED", 60)
    assert "rank 3 of 4: hi" in system.cli("logs", "shell", "--rank", "3").stdout
    assert not [p for p in processes_of(system.run_dir) if "sleep 1000" in p.command]


def output_of(torchrun: list[str], folder: Path, env: Mapping[str, str], tries: int = 3) -> str:
    """What it prints. Where a worker aborts at its very end, torchrun begins again, and now and then hangs for ever."""
    for number in range(tries):
        here = folder / f"try-{number}"
        here.mkdir()
        with subprocess.Popen(torchrun, cwd=here, env=env, stdout=subprocess.PIPE, text=True, process_group=0) as run:
            try:
                printed, _ = run.communicate(timeout=50)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                continue
            assert run.returncode == 0
            return printed
    raise AssertionError(f"torchrun was not done in {tries} tries of 50 s each")


def test_the_page_about_moving_from_torchrun(system: LocalSystem, tmp_path: Path) -> None:
    """Both commands of docs/howto/torchrun.md are executed, and end with the same loss."""
    page = (DOCS / "howto" / "torchrun.md").read_text()
    example = DOCS / "examples" / "torchrun"
    job = (example / "job.yaml").read_text()
    assert f"```yaml\n{job}```" in page
    assert len(job.splitlines()) <= 10
    old = next(line for line in page.splitlines() if line.startswith("torchrun ")).split()
    assert old[-3:] == yaml.safe_load(job)["spec"]["command"]
    old[0], old[-3] = str(Path(sys.executable).with_name("torchrun")), str(example / "train.py")
    printed = output_of([old[0], "--standalone", *old[1:]], tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    system.cli("submit", "-f", str(example / "job.yaml"), "--set", f"spec.launch.workdir={example}",
               "--set", "spec.nodes.max=1", "--wait", timeout_s=100)  # fmt: skip
    last = "epoch 5 on 2 ranks: loss "
    (theirs,) = [line for line in printed.splitlines() if last in line]
    (ours,) = [line for line in system.cli("logs", "line", "--rank", "0").stdout.splitlines() if last in line]
    assert ours.partition(last)[2] == theirs.partition(last)[2]
