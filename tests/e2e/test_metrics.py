"""What the controller and the agents tell Prometheus about a job, and that nothing of an installation stays behind.

Without it dashboards could be empty or wrong on a real installation, and processes stay when it is gone.
"""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.local_system import LocalSystem, tiny_job
from e2e.process_tree import processes_of

pytestmark = pytest.mark.e2e
Local = Callable[..., LocalSystem]
FORBIDDEN_LABELS = {"rank", "node", "worker", "slot", "pid", "uid", "step", "generation", "incarnation"}
CONTROLLER_NAMES = {
    "trainctl_job_phase",
    "trainctl_job_time_seconds_total",
    "trainctl_job_step",
    "trainctl_job_loss",
    "trainctl_job_tokens_total",
    "trainctl_job_generation",
    "trainctl_leader_epoch",
    "trainctl_reconcile_seconds_count",
    "trainctl_agent_sessions",
    "trainctl_heartbeats_total",
    "trainctl_store_db_bytes",
    "trainctl_build_info",
}
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scrape(address: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = [_SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(found)
    return {(m[1], tuple(_LABEL.findall(m[2] or ""))): float(m[3]) for m in found if m}


def names(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> set[str]:
    return {name for name, _ in samples}


def goodput_s(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], job: str) -> float:
    return sum(
        value
        for (name, labels), value in samples.items()
        if name == "trainctl_job_time_seconds_total" and dict(labels)["job_name"] == job
    )


def test_metrics_of_a_running_and_of_an_ended_job(system: LocalSystem, corpus: Path) -> None:
    system.submit(tiny_job("measured", corpus, steps=100_000))
    job = system.wait_step("measured", 10)
    controller = scrape(system.controller["metrics_address"])
    agents = [scrape(node.metrics_address) for node in system.nodes()]

    assert names(controller) >= CONTROLLER_NAMES
    assert controller["trainctl_job_phase", (("job_name", "measured"), ("phase", "RUNNING"))] == 1
    for samples in agents:
        assert samples["trainctl_agent_worker_starts_total", (("job_name", "measured"),)] == 2
        assert {"trainctl_agent_heartbeats_total", "trainctl_agent_rss_bytes"} <= names(samples)
    for samples in (controller, *agents):
        assert not [name for name in names(samples) if name.endswith("_created")]
        assert not {label for _, labels in samples for label, _ in labels} & FORBIDDEN_LABELS
        assert [name for name in names(samples) if not name.startswith(("trainctl_", "grpc_server_"))] == []

    before_s = time.time()
    total_s = goodput_s(scrape(system.controller["metrics_address"]), "measured")
    after_s = time.time()
    assert before_s - job.create_time_s - 0.5 <= total_s <= after_s - job.create_time_s + 0.5

    system.cli("cancel", "measured", "--checkpoint", "-y")
    ended = system.wait_phase("measured", "CANCELLED", 30)
    lived_s = ended.status.end_time_s - ended.create_time_s
    saved = scrape(system.controller["metrics_address"])
    assert goodput_s(saved, "measured") == pytest.approx(lived_s, abs=0.5)
    for stage, ranks in (("copy", 4), ("write", 4), ("sync", 4), ("seal", 1), ("publish", 1)):
        labels = (("direction", "save"), ("job_name", "measured"), ("stage", stage))
        assert saved["trainctl_job_checkpoint_stage_seconds_count", labels] == ranks
    assert saved["trainctl_job_checkpoint_imbalance_ratio", (("job_name", "measured"),)] >= 1.0
    assert not {label for _, labels in saved for label, _ in labels} & FORBIDDEN_LABELS


def left_behind(system: LocalSystem) -> list[str]:
    """Processes of the installation, known by their environment or by its folder on their command line."""
    found = {f"{p.pid} {p.command}" for p in processes_of(system.run_dir)}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(system.run_dir) in command:
            found.add(f"{folder.name} {command}")
    return sorted(found)


def none_left(system: LocalSystem, deadline_s: float) -> list[str]:
    end_s = time.monotonic() + deadline_s
    while (left := left_behind(system)) and time.monotonic() < end_s:
        os.sched_yield()
    return left


@pytest.mark.parametrize("kill", [False, True], ids=["down", "killed-then-down"])
def test_nothing_is_left_after_local_down(local: Local, corpus: Path, kill: bool) -> None:
    system = local(agents=1)
    system.submit(tiny_job("left", corpus, steps=100_000, nodes=1))
    system.wait_step("left", 2)
    assert len(left_behind(system)) >= 5  # controller, agent, fork server, two workers
    if kill:
        agent = system.agent_pid("node-0")
        os.kill(system.controller["pid"], signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)
    system.down()
    assert none_left(system, 10) == []
