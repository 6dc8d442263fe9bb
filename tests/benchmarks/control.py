"""``make bench-control``: how fast a job starts and the command line answers, and what a controller costs.

Each figure of one machine is repeated, the first repetition dropped. The agents are connections of real agents without
workers (``simulated_agents``) to a real controller, beside two real agents that run one job; etcd is one real member.
Prints a table and, last, one JSON line; exits with 1 if something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.control_commit import cpu_s, heartbeats, heartbeats_per_core_s, lighthouse_rounds, rounds
from benchmarks.control_store import TTL_S, failovers_s, fenced_txn_rates
from benchmarks.quantiles import quantile
from e2e.local_system import LocalSystem, tiny_job
from simulation.scale import Scale, run_scale
from trainctl.controller.domain.pace import heartbeat_s
from trainctl.protos.version import package_version

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach: at most, unless ``at_least``; the median of its samples, or another quantile.

    Without a value it is there to compare with.
    """

    value: float | None
    at_least: bool = False
    quantile: float = 0.5

    def of(self, samples: Sequence[float]) -> float:
        """The figure."""
        return quantile(samples, self.quantile)

    def missed(self, figure: float) -> bool:
        """Whether the figure does not reach it."""
        if self.value is None:
            return False
        return figure < self.value if self.at_least else figure > self.value


TARGETS = {
    "submit_to_running_p50_s": Target(3.0),
    "cli_get_p50_s": Target(0.5),
    "help_p50_s": Target(0.3),
    "controller_rss_mb": Target(150.0),
    "agents_200_controller_cpu": Target(0.25),
    "failover_p95_s": Target(TTL_S + 1.0, quantile=0.95),
    "fenced_txn_per_s": Target(2000.0, at_least=True),
    "heartbeats_per_s_per_core": Target(4000.0, at_least=True),
    "commit_1000_members_p99_s": Target(0.5, quantile=0.99),
    "prepare_and_commit_1000_members_p99_s": Target(None, quantile=0.99),
    "torchft_quorum_1000_members_p99_s": Target(None, quantile=0.99),
    "sim_10k_agents_1h_wall_s": Target(180.0),
    "mass_failure_10pct_generations": Target(1.0),
    "mass_failure_10pct_verdicts_s": Target(15.0),
}
PARTS = "commands,memory,agents,store,large,simulation"
MEMBERS = 1000
BEATING_AGENTS = 400
PROCESSES = 2
"""That the simulated agents are spread over, so that they never wait for each other."""
WINDOW_S = 10.0
LEAST_HEARTBEATS = 0.9
"""Share of the heartbeats due that must have come, or the agents were not as busy as real ones."""
PATIENCE_S = 120.0
PACED_JOB = f"""
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {{name: paced}}
spec:
  command: [python, {HERE / "paced_loop.py"}]
  launch: {{mode: session}}
  nodes: {{min: 2, max: 2}}
  resources: {{workersPerNode: 2, threadsPerWorker: 1}}
  recovery: {{profile: fast}}
"""


@dataclass(slots=True)
class Figures:
    """Samples by figure, their first repetitions, and what went wrong."""

    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TARGETS})
    first: dict[str, float] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, name: str, value: float, *, keep: bool) -> None:
        """Notes a sample, unless it is the first of its kind."""
        print(f"  {name} {value:.3f}{'' if keep else '  (dropped: the first)'}", flush=True)
        self.first.setdefault(name, round(value, 3))
        if keep:
            self.samples[name].append(value)
            self.load.append(os.getloadavg()[0])


@contextmanager
def local_system() -> Iterator[LocalSystem]:
    """A controller with two agents of two slots each, as ``trainctl local up`` starts them."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = LocalSystem(Path(folder) / "local")
        try:
            system.up()
            yield system
        finally:
            system.down()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Polls a system from outside, gently: the machine is the benchmark's."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.1)


def command_s(system: LocalSystem, *arguments: str) -> float:
    """Seconds of one whole process of the command line."""
    began_s = time.monotonic()
    system.cli(*arguments, timeout_s=PATIENCE_S)
    return time.monotonic() - began_s


def measure_commands(figures: Figures, runs: int, corpus: Path) -> None:
    """In turn: a submission until its job is RUNNING, a listing, a help text."""
    with local_system() as system:
        for run in range(runs + 1):
            (job := system.run_dir.parent / "job.yaml").write_text(tiny_job(name := f"job-{run}", corpus, steps=10**6))
            submit_s = command_s(system, "submit", "-f", str(job), "--wait=RUNNING")
            figures.take("submit_to_running_p50_s", submit_s, keep=run > 0)
            system.cli("cancel", name, "-y")
            wait_for(lambda name=name: system.job(name).status.phase == "CANCELLED", "the end of the job")  # type: ignore[misc]
            for _ in range(2):
                figures.take("cli_get_p50_s", command_s(system, "get", "jobs"), keep=run > 0)
                figures.take("help_p50_s", command_s(system, "--help"), keep=run > 0)


def resident_mb(pid: int) -> float:
    """Resident memory of a process in 10^6 bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def measure_memory(figures: Figures, lives: int) -> None:
    """Fresh controllers, some seconds after their agents connected."""
    for life in range(lives + 1):
        with local_system() as system:
            wait_for(lambda system=system: all(n.state == "READY" for n in system.nodes()), "the agents")  # type: ignore[misc]
            time.sleep(3)
            figures.take("controller_rss_mb", resident_mb(system.controller["pid"]), keep=life > 0)


@contextmanager
def simulated_agents(system: LocalSystem, count: int) -> Iterator[None]:
    """So many more agents, connected."""
    command = [sys.executable, str(HERE / "simulated_agents.py"), system.controller["address"]]
    command.append(str(system.run_dir / "token"))
    shares = [range(count)[index::PROCESSES] for index in range(PROCESSES)]
    firsts = [sum(len(share) for share in shares[:index]) for index in range(PROCESSES)]
    processes = [
        subprocess.Popen([*command, str(first), str(len(share))]) for first, share in zip(firsts, shares, strict=True)
    ]
    try:
        wait_for(lambda: sum(node.state == "READY" for node in system.nodes()) == count + 2, "the simulated agents")
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_agents(figures: Figures, count: int, windows: int) -> None:
    """The controller's share of a core while so many agents beat and one job of four workers runs."""
    with local_system() as system:
        system.submit(PACED_JOB, "--wait=RUNNING")
        pid = system.controller["pid"]
        with simulated_agents(system, count - 2):
            for window in range(windows + 1):
                used_s, beats, began_s = cpu_s(pid), heartbeats(system), time.monotonic()
                time.sleep(WINDOW_S)
                took_s = time.monotonic() - began_s
                share = (cpu_s(pid) - used_s) / took_s
                came, due = heartbeats(system) - beats, count * took_s / heartbeat_s(count)
                if came < LEAST_HEARTBEATS * due:
                    raise RuntimeError(f"{came:.0f} heartbeats came in {took_s:.1f} s, {due:.0f} were due")
                figures.take("agents_200_controller_cpu", share, keep=window > 0)


def measure_store(figures: Figures, kills: int, windows: int) -> None:
    """etcd: how fast another controller leads, and transactions."""
    for number, seconds in enumerate(failovers_s(kills + 1)):
        figures.take("failover_p95_s", seconds, keep=number > 0)
    for number, rate in enumerate(fenced_txn_rates(windows + 1)):
        figures.take("fenced_txn_per_s", rate, keep=number > 0)


def measure_large(figures: Figures, windows: int, turns: int) -> None:
    """What heartbeats cost; changes of the generation of a large job, and torchft's quorum of as many, in turns."""
    with local_system() as system:
        for number, rate in enumerate(heartbeats_per_core_s(system, agents=BEATING_AGENTS, windows=windows + 1)):
            figures.take("heartbeats_per_s_per_core", rate, keep=number > 0)
    for _ in range(2):
        with local_system() as system:
            for number, one in enumerate(rounds(system, agents=MEMBERS, slots=1, count=turns + 1)):
                figures.take("commit_1000_members_p99_s", one.commit_s, keep=number > 0)
                figures.take("prepare_and_commit_1000_members_p99_s", one.whole_s, keep=number > 0)
        for number, seconds in enumerate(lighthouse_rounds(MEMBERS, turns + 1)):
            figures.take("torchft_quorum_1000_members_p99_s", seconds, keep=number > 0)


def measure_simulation(figures: Figures, hours: float) -> None:
    """An hour of ten thousand simulated agents in virtual time, of which a tenth dies at the end; once, it is long."""
    scaled = run_scale(Scale(hours=hours))
    print(f"  {scaled}", flush=True)
    figures.take("sim_10k_agents_1h_wall_s", scaled.wall_s / hours, keep=True)
    figures.take("mass_failure_10pct_generations", scaled.generations, keep=True)
    figures.take("mass_failure_10pct_verdicts_s", scaled.verdicts_s, keep=True)


def report(figures: Figures, options: argparse.Namespace) -> int:
    """Prints the table and the JSON line; the exit code."""
    print(f"\n{'figure':37} {'n':>3} {'value':>8} {'min':>8} {'max':>8} {'target':>8}")
    found: dict[str, float | None] = dict.fromkeys(TARGETS)
    spread: dict[str, Sequence[float]] = {}
    for name, samples in figures.samples.items():
        if samples:
            found[name] = value = round(TARGETS[name].of(samples), 3)
            spread[name] = [round(min(samples), 3), round(max(samples), 3)]
            cells = (value, *spread[name], TARGETS[name].value)
            shown = " ".join(f"{cell:8.3f}" if cell is not None else f"{'-':>8}" for cell in cells)
            print(f"{name:37} {len(samples):3} {shown}")
    missed = [name for name, figure in found.items() if figure is not None and TARGETS[name].missed(figure)]
    print(
        json.dumps(
            {
                **found,
                "spread": spread,
                "samples": {name: len(samples) for name, samples in figures.samples.items()},
                "first_dropped": figures.first,
                "targets": {name: target.value for name, target in TARGETS.items()},
                "targets_missed": missed,
                "lease_ttl_s": TTL_S,
                "agents": options.agents,
                "heartbeat_s": heartbeat_s(options.agents),
                "cores": os.cpu_count(),
                "load_1min": [round(min(figures.load), 2), round(max(figures.load), 2)] if figures.load else None,
                "trainctl": package_version(),
                "grpcio": version("grpcio"),
                "python": sys.version.split()[0],
                "errors": figures.errors,
            }
        )
    )
    everything = options.parts == PARTS
    return 1 if figures.errors or (everything and None in found.values()) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=12, help="submissions")
    parser.add_argument("--lives", type=int, default=4, help="controllers whose memory is looked at")
    parser.add_argument("--agents", type=int, default=200, help="connected agents, the two real ones included")
    parser.add_argument("--windows", type=int, default=6, help=f"of {WINDOW_S:g} s of the agents' heartbeats")
    parser.add_argument("--kills", type=int, default=20, help="of leaders beside an etcd")
    parser.add_argument("--rounds", type=int, default=10, help="twice so many changes of a large job's generation")
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time; wall time is scaled up to one")
    parser.add_argument("--parts", default=PARTS, help="what to measure")
    options = parser.parse_args()
    corpus = Path(json.__file__).parents[1] / "email"
    figures = Figures()
    parts: dict[str, Callable[[], None]] = {
        "commands": lambda: measure_commands(figures, options.runs, corpus),
        "memory": lambda: measure_memory(figures, options.lives),
        "agents": lambda: measure_agents(figures, options.agents, options.windows),
        "store": lambda: measure_store(figures, options.kills, options.windows),
        "large": lambda: measure_large(figures, options.windows, options.rounds),
        "simulation": lambda: measure_simulation(figures, options.hours),
    }
    print(f"trainctl {package_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    for name, part in parts.items():
        if name not in options.parts.split(","):
            continue
        print(name, flush=True)
        try:
            part()
        except Exception as error:  # what can be measured is, and the exit code says that something could not
            figures.errors.append(f"{name}: {type(error).__name__}: {error}")
            print(f"  {figures.errors[-1]}", flush=True)
    return report(figures, options)


if __name__ == "__main__":
    sys.exit(main())
