"""The command line on a real installation: logs over a dead controller, the doctor, the trace, completion in bash.

Without it what people reach for when something is wrong could fail just then.
"""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from e2e.local_system import TRAINCTL, LocalSystem, tiny_job, workers
from waiting import PATIENCE_S

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def environment(system: LocalSystem) -> dict[str, str]:
    own = {"TRAINCTL_HOME": str(system.run_dir.parent), "TRAINCTL_CONFIG": ""}
    return {**os.environ, **own, "PATH": f"{Path(TRAINCTL).parent}{os.pathsep}{os.environ['PATH']}"}


class Follower:
    """``trainctl logs -f -o json`` as a process, read by a thread."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.lines: list[dict[str, object]] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [TRAINCTL, "logs", name, "-f", "-o", "json", "--tail", "1000000"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()

    def until(self, incarnation: int, deadline_s: float = PATIENCE_S) -> None:
        """Waits for the first line of a worker's life."""
        with self._news:
            found = self._news.wait_for(
                lambda: any(line["incarnation"] == incarnation for line in self.lines), timeout=deadline_s
            )
        assert found, f"no line of life {incarnation}"


def test_logs_are_followed_exactly_over_lost_workers_and_a_dead_controller(
    system: LocalSystem, environment: dict[str, str], corpus: Path
) -> None:
    system.submit(tiny_job("talk", corpus, steps=1_000_000))
    system.wait_step("talk", 3)
    follower = Follower("talk", environment)
    for count, rank in enumerate((1, 2), 1):
        victim = workers(system.job("talk"))[rank]
        follower.until(victim.incarnation)
        os.kill(system.controller["pid"], signal.SIGKILL)
        os.kill(victim.pid, signal.SIGKILL)
        system.up()
        fresh = system.wait(
            "talk",
            f"recovery {count}",
            lambda job, count=count: (  # type: ignore[misc]
                job.status.recovery_count == count and "total" in job.status.recoveries[-1].phases_s
            ),
        )
        (newest,) = [w.incarnation for w in workers(fresh).values() if w.slot == victim.slot]
        follower.until(newest)
    system.cli("cancel", "talk", "-y", "--grace", "1s")
    _, err = follower.process.communicate(timeout=60)
    assert follower.process.returncode == 9, err
    shown = [(line["slot"], line["incarnation"], line["number"]) for line in follower.lines]
    assert len(set(shown)) == len(shown)
    uid = system.job("talk").uid
    for log in system.run_dir.glob(f"nodes/*/logs/{uid}/*.log"):
        slot, incarnation = map(int, log.stem.split("-"))
        texts = [line["line"] for line in follower.lines if (line["slot"], line["incarnation"]) == (slot, incarnation)]
        assert texts == [line.split(" ", 1)[1] for line in log.read_text().splitlines()], log
    assert len({(slot, life) for slot, life, _ in shown}) == 6

    trace = json.loads(system.cli("timeline", "talk", "-o", "chrome-trace").stdout)
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {"STARTING", "RUNNING", "RECOVERING"} <= {span["name"] for span in spans}
    whole = [span for span in spans if span["name"].startswith("generation ")]
    assert len(whole) == 2
    for span in whole:
        end = span["ts"] + span["dur"]
        inside = [s for s in spans if s["tid"] == span["tid"] and span["ts"] <= s["ts"] < end and s is not span]
        assert inside
        assert all(s["ts"] + s["dur"] <= end + 1 for s in inside)
    assert int(system.cli("get", "job", "talk", "-o", "jsonpath=.status.recoveryCount").stdout) == 2
    last = system.cli("logs", "talk", "--rank", "1", "--attempt", "last", "-o", "json").stdout.splitlines()
    assert len({json.loads(line)["incarnation"] for line in last}) == 1
    assert system.cli("logs", "talk", "--since", "1d").stdout
    assert system.cli("logs", "talk", "--since", "2099-01-01T00:00:00Z").stdout == ""


def test_the_doctor_finds_this_installation_well_and_a_frozen_controller_not(system: LocalSystem) -> None:
    well = json.loads(system.cli("doctor", "-o", "json").stdout)
    assert well["healthy"]
    by_name = {check["check"]: check for check in well["checks"]}
    assert by_name["agents"]["message"] == "heard: 2 of 2"
    assert by_name["clock"]["status"] == "ok"
    assert by_name["store"]["status"] != "fail"
    assert by_name["store"]["message"].startswith(f"file:{system.run_dir}/store.sqlite3 takes writes")
    assert "gloo" in by_name["torch"]["message"]
    pid = system.controller["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        ill = system.cli("doctor", "--timeout", "500ms", check=False)
        assert ill.returncode == 1
        assert f"kill -CONT {pid}" in ill.stdout
        for command in (("get", "jobs", "--timeout", "500ms"), ("local", "up"), ("local", "status")):
            stuck = system.cli(*command, check=False)
            assert f"kill -KILL {pid} && trainctl local up" in stuck.stderr, stuck.stderr
    finally:
        os.kill(pid, signal.SIGCONT)


def test_bash_completes_the_names_of_real_jobs(system: LocalSystem, environment: dict[str, str], corpus: Path) -> None:
    system.submit(tiny_job("tabbed", corpus, steps=2, nodes=1))
    script = """
eval "$(trainctl completion bash)"
COMP_WORDS=(trainctl explain tab) COMP_CWORD=2
_trainctl
printf '%s' "${COMPREPLY[*]}"
"""
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("tabbed", "")
    watched = system.cli("get", "job", "tabbed", "-w", "-o", "jsonpath=.status.phase")
    assert watched.stdout.splitlines()[-1] == "SUCCEEDED"
