"""Jobs that cost next to nothing and run until a gate is opened; what they did can be counted afterwards."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.ledger import assert_exact_ledger
from e2e.local_system import LocalSystem
from trainctl.protos.v1 import job_pb2

SEQUENCES = 4
RECORDS_S = 20.0
_SCRIPTS = Path(__file__).parent / "scripts"
_TICKS = 'while [ ! -e "$GATE" ]; do i=$((i+1)); echo "$$ $i" >> "$TRAINCTL_WORKDIR/ticks"; sleep 0.5; done'


@dataclass(frozen=True, slots=True)
class PacedJobs:
    """Makes job files; all of its jobs end once ``gate`` exists.

    Attributes:
        gate: the file.
        profile: of recovery.
    """

    gate: Path
    profile: str = "balanced"

    def training(
        self,
        name: str,
        *,
        steps: int,
        pause_s: float,
        interval_steps: int = 50,
        nodes: tuple[int, int] = (2, 2),
        per_node: int = 1,
    ) -> str:
        """Workers on two nodes that train ``steps`` steps, each of at least ``pause_s`` before the gate opens."""
        spec = {
            "nodes": {"min": nodes[0], "max": nodes[1]},
            "resources": {"workersPerNode": per_node, "threadsPerWorker": 1},
            "recovery": {"profile": self.profile},
            "checkpoint": {"intervalSteps": interval_steps},
            "env": {"PYTHONPATH": str(_SCRIPTS)},
            "train": {
                "task": "paced:build",
                "options": {"gate": str(self.gate), "pause_s": pause_s},
                "optimizer": {"name": "sgd", "lr": 0.01, "weightDecay": 0},
                "schedule": {"kind": "constant", "warmupSteps": 1},
                "steps": steps,
                "batch": {"sequences": SEQUENCES, "microBatches": 2 * per_node},
                "eval": {"every": 10 * steps, "sequences": 4},
            },
        }
        return yaml.safe_dump({"metadata": {"name": name}, "spec": spec})

    def ticking(self, name: str) -> str:
        """A command that counts in a file, twice a second."""
        spec = {
            "command": ["sh", "-c", _TICKS],
            "nodes": {"min": 1, "max": 1},
            "resources": {"workersPerNode": 1, "threadsPerWorker": 1},
            "recovery": {"profile": self.profile},
            "env": {"GATE": str(self.gate)},
        }
        return yaml.safe_dump({"metadata": {"name": name}, "spec": spec})

    def open(self) -> None:
        """From now on they end."""
        self.gate.touch()


def ticks(job: job_pb2.Job) -> list[tuple[int, int]]:
    """What a ticking job wrote: its process and the count, line by line."""
    path = Path(job.status.workdir) / "ticks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(process), int(count)) for process, count in (line.split() for line in lines)]


def check_ticks(job: job_pb2.Job) -> None:
    """One process counted without a gap."""
    found = ticks(job)
    assert len({process for process, _ in found}) == 1, f"{job.spec.metadata.name} was started again"
    assert [count for _, count in found] == list(range(1, len(found) + 1))


def check_training(system: LocalSystem, name: str, *, steps: int, longest_pause_s: float) -> None:
    """Every step and every sample once; and steps came all the time, whatever happened to the controllers."""
    deadline_s = time.monotonic() + RECORDS_S
    while len(figures := system.figures(name)) < steps and time.monotonic() < deadline_s:
        time.sleep(0.1)  # those that went to an earlier leader are read from the job's records
    assert_exact_ledger(figures, steps=steps, sequences=SEQUENCES)
    assert len({figure.sample_digest for figure in figures}) == steps
    pauses = [(b.wall_s - a.wall_s, a.step) for a, b in itertools.pairwise(figures)]
    assert max(pauses)[0] < longest_pause_s, (
        f"{name} stood still for {max(pauses)[0]:.1f} s after step {max(pauses)[1]}"
    )
    assert system.job(name).status.tokens == sum(figure.tokens for figure in figures)
