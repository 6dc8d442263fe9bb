"""The parts of ``make bench-control`` about many agents: what heartbeats cost, and a generation of many members."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from e2e.local_system import LocalSystem

HERE = Path(__file__).parent
PROCESSES = 2
PATIENCE_S = 180.0
WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """One change of generation after a worker died.

    Attributes:
        commit_s: from the last member's answer to PREPARE until the last member is told the committed generation.
        whole_s: from the worker's death until then; that all members stop and answer is part of it.
    """

    commit_s: float
    whole_s: float


@dataclass(slots=True)
class Crowd:
    """The processes of the simulated members, and what they say."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    heard: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    def listen(self, output: IO[str]) -> None:
        """Takes in what one process prints, until it ends."""
        for line in output:
            self.heard.put(json.loads(line))

    def exit_worker(self, node: int, agents: int) -> None:
        """The first worker of a node dies."""
        process = self.processes[min(node * PROCESSES // agents, PROCESSES - 1)]
        assert process.stdin is not None
        process.stdin.write(f"exit sim-{node}\n")
        process.stdin.flush()

    def until(self, what: str, generation: int) -> dict[str, float]:
        """Waits until the agents of all processes are told a generation; the last time each thing was said of it."""
        counts: dict[str, int] = {}
        last_s: dict[str, float] = {}
        end_s = time.monotonic() + PATIENCE_S
        while counts.get(what, 0) < len(self.processes):
            said = self.heard.get(timeout=max(0.0, end_s - time.monotonic()))
            if said["generation"] == generation:
                counts[said["what"]] = counts.get(said["what"], 0) + 1
                last_s[said["what"]] = max(last_s.get(said["what"], 0.0), said["at_s"])
        return last_s


@contextmanager
def crowd(system: LocalSystem, agents: int, slots: int) -> Iterator[Crowd]:
    """So many simulated agents with so many workers each."""
    found = Crowd()
    command = [sys.executable, str(HERE / "members.py"), system.controller["address"], str(system.run_dir / "token")]
    bounds = [agents * index // PROCESSES for index in range(PROCESSES + 1)]
    try:
        for first, stop in pairwise(bounds):
            arguments = [*command, str(first), str(stop - first), str(slots)]
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            threading.Thread(target=found.listen, args=(process.stdout,), daemon=True).start()
            found.processes.append(process)
        yield found
    finally:
        for process in found.processes:
            process.kill()
            process.wait()


def rounds(system: LocalSystem, *, agents: int, slots: int, count: int) -> Iterator[Round]:
    """Changes of the generation of one job of ``agents * slots`` members, each after another worker died."""
    for node in system.nodes():
        system.cli("nodes", "cordon", node.node)
    with crowd(system, agents, slots) as members:
        spec = {
            "command": ["python", str(HERE / "paced_loop.py")],
            "launch": {"mode": "session"},
            "nodes": {"min": agents, "max": agents},
            "resources": {"workersPerNode": slots},
            "recovery": {"profile": "patient", "maxRestarts": {"process": 100000}},
        }
        job = {"apiVersion": "trainctl.dev/v1", "kind": "TrainJob", "metadata": {"name": "crowd"}, "spec": spec}
        system.submit(json.dumps(job))
        members.until("told", 1)
        for number in range(count):
            system.wait_phase("crowd", "RUNNING", PATIENCE_S)
            began_s = time.monotonic()
            members.exit_worker(number * 7 % agents, agents)
            last_s = members.until("told", number + 2)
            yield Round(commit_s=last_s["told"] - last_s["answered"], whole_s=last_s["told"] - began_s)


def lighthouse_rounds(members: int, count: int) -> Iterator[float]:
    """Seconds of torchft's quorum of so many members: from the first that asks until the last has its answer."""
    command = [sys.executable, str(HERE / "peers" / "torchft_quorum.py"), str(members), str(count)]
    environment = {**os.environ, "RUST_LOG": "error"}  # it logs every member at every change
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    yield from json.loads(done.stdout)


def heartbeats_per_core_s(system: LocalSystem, *, agents: int, windows: int) -> Iterator[float]:
    """Heartbeats that the controller takes in for each second of processor time it uses, one job on all agents."""
    for _ in rounds(system, agents=agents, slots=1, count=1):
        pid = int(system.controller["pid"])
        for _ in range(windows):
            used_s, beats = cpu_s(pid), heartbeats(system)
            time.sleep(WINDOW_S)
            yield (heartbeats(system) - beats) / (cpu_s(pid) - used_s)


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used, its threads and its time in the kernel included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def heartbeats(system: LocalSystem) -> float:
    """Observations that the controller has received from its agents."""
    with urllib.request.urlopen(f"http://{system.controller['metrics_address']}/metrics", timeout=10) as page:
        found = re.search(r"^trainctl_heartbeats_total (\S+)$", page.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])
