"""The part of ``make bench-control`` about large jobs: how long a generation of many members takes, and torchft's."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from e2e.local_system import LocalSystem

HERE = Path(__file__).parent
PROCESSES = 2
PATIENCE_S = 180.0


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

    def until(self, what: str, generation: int, agents: int) -> dict[str, float]:
        """Waits until all agents are told a generation; the last time each thing was said of it."""
        counts: dict[str, int] = {}
        last_s: dict[str, float] = {}
        end_s = time.monotonic() + PATIENCE_S
        while counts.get(what, 0) < agents:
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
    system.cli("nodes", "cordon", "node-0")
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
        members.until("told", 1, agents)
        for number in range(count):
            system.wait_phase("crowd", "RUNNING", PATIENCE_S)
            began_s = time.monotonic()
            members.exit_worker(number * 7 % agents, agents)
            last_s = members.until("told", number + 2, agents)
            yield Round(commit_s=last_s["told"] - last_s["answered"], whole_s=last_s["told"] - began_s)


def lighthouse_rounds(members: int, count: int) -> Iterator[float]:
    """Seconds of torchft's quorum of so many members: from the first that asks until the last has its answer."""
    from torchft.coordination import LighthouseClient, LighthouseServer

    server = LighthouseServer(bind="127.0.0.1:0", min_replicas=members, quorum_tick_ms=10, join_timeout_ms=60000)
    patience = timedelta(seconds=PATIENCE_S)
    try:
        clients = [LighthouseClient(server.address(), connect_timeout=patience) for _ in range(members)]
        with ThreadPoolExecutor(members) as pool:
            for number in range(count):
                began_s = time.monotonic()
                asked = [
                    pool.submit(client.quorum, f"member-{index}", patience, step=number, world_size=1)
                    for index, client in enumerate(clients)
                ]
                for answer in asked:
                    answer.result()
                yield time.monotonic() - began_s
    finally:
        server.shutdown()
