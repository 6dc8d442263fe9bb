"""The sides of the recovery benchmark, driven alike: start, watch commits, kill a worker, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workload import VOCABULARY, Workload
from e2e.local_system import LocalSystem, workers
from trainctl.core.system.processes import identify, is_alive

PEERS = Path(__file__).parent / "peers"
ENDLESS = 1_000_000
CHECKPOINT_EVERY = 20


class System(Protocol):
    """One side of the comparison."""

    name: str

    def start(self) -> None:
        """Starts the job; returns at once."""

    def commits(self) -> Sequence[tuple[int, float]]:
        """(step, Unix time) of every commit so far, in order of time."""

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> float:
        """Signals one worker; returns the Unix time of the signal."""

    def whole(self) -> bool:
        """Whether all workers take part again."""

    def stop(self) -> None:
        """Ends everything."""


def read_log(path: Path) -> list[tuple[int, float]]:
    """The lines of a step log; a torn last line is left out."""
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(int(step), float(wall_s)) for step, wall_s in lines]


def children_of(pid: int) -> list[int]:
    """Process ids of the children, oldest first."""
    return sorted(int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


class Torchrun:
    """``torchrun`` and a plain DDP script that saves every 20 steps and starts again from the newest save."""

    name = "torchrun"

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload, self._folder = workload, folder
        self._log = folder / "steps.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        torchrun = Path(sys.executable).with_name("torchrun")
        arguments = ["--nproc-per-node", str(self._workload.world_size), "--max-restarts", "1000"]
        arguments += ["--monitor-interval", "0.1", "--master-addr", "127.0.0.1", "--rdzv-backend", "c10d"]
        arguments += ["--rdzv-endpoint", "127.0.0.1:0"]
        script = [str(PEERS / "ddp_train.py"), json.dumps(self._workload.sizes()), str(self._log), str(ENDLESS)]
        script += [str(self._folder / "checkpoint.pt"), str(CHECKPOINT_EVERY)]
        # Without this, restarted gloo workers meet the dead ones' addresses in the shared store (torch 2.13).
        environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        output = (self._folder / "output.log").open("ab")
        self._process = subprocess.Popen(
            [str(torchrun), *arguments, *script], env=environment, stdout=output, stderr=output, start_new_session=True
        )

    def commits(self) -> Sequence[tuple[int, float]]:
        return read_log(self._log)

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> float:
        assert self._process is not None
        pid = children_of(self._process.pid)[rank]
        now_s = time.time()
        os.kill(pid, number)
        return now_s

    def whole(self) -> bool:
        return True  # nothing commits with fewer workers

    def stop(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Torchft:
    """torchft: a lighthouse, one replica group a worker, and a launcher that restarts a dead replica at once."""

    name = "torchft"

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload, self._folder = workload, folder
        self._lighthouse: subprocess.Popen[bytes] | None = None
        self._address = ""
        self._replicas: dict[int, subprocess.Popen[bytes]] = {}
        self._restarted: tuple[int, int] | None = None

    def start(self) -> None:
        address = self._folder / "lighthouse"
        output = (self._folder / "lighthouse.log").open("ab")
        command = [sys.executable, str(PEERS / "torchft_lighthouse.py"), str(address)]
        self._lighthouse = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        while not address.exists():
            if self._lighthouse.poll() is not None:
                raise RuntimeError(
                    f"torchft's lighthouse ended: {(self._folder / 'lighthouse.log').read_text()[-500:]}"
                )
            time.sleep(0.05)
        self._address = address.read_text()
        for rank in range(self._workload.world_size):
            self._launch(rank)

    def _log(self, rank: int) -> Path:
        return self._folder / f"steps-{rank}.log"

    def _launch(self, rank: int) -> None:
        script = [str(PEERS / "torchft_train.py"), json.dumps(self._workload.sizes()), str(self._log(rank))]
        environment = {**os.environ, "TORCHFT_LIGHTHOUSE": self._address, "OMP_NUM_THREADS": "1"}
        output = (self._folder / f"output-{rank}.log").open("ab")
        self._replicas[rank] = subprocess.Popen(
            [sys.executable, *script, str(ENDLESS), str(rank)], env=environment, stdout=output, stderr=output
        )

    def commits(self) -> Sequence[tuple[int, float]]:
        self._restart_dead()
        everybody = (line for rank in self._replicas for line in read_log(self._log(rank)))
        return sorted(everybody, key=lambda commit: commit[1])

    def _restart_dead(self) -> None:
        """What a launcher does: a replica that ended (its quorum call timed out, say) is started again."""
        for rank, process in list(self._replicas.items()):
            if process.poll() is not None:
                self._launch(rank)

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> float:
        lines = len(read_log(self._log(rank)))
        now_s = time.time()
        self._replicas[rank].send_signal(number)
        if number == signal.SIGKILL:
            self._replicas[rank].wait()
            self._restarted = (rank, lines)
            self._launch(rank)
        return now_s

    def whole(self) -> bool:
        return self._restarted is None or len(read_log(self._log(self._restarted[0]))) > self._restarted[1]

    def stop(self) -> None:
        for process in self._replicas.values():
            process.kill()
            process.wait()
        if self._lighthouse is not None:
            self._lighthouse.kill()
            self._lighthouse.wait()


class Ours:
    """trainctl: controller, two agents, two workers each, as ``trainctl local up`` starts them."""

    name = "trainctl"

    def __init__(self, workload: Workload, folder: Path, *, corpus: Path) -> None:
        self._workload, self._corpus = workload, corpus
        self.system = LocalSystem(folder / "local", agents=2, slots=workload.world_size // 2)

    def spec(self, *, steps: int, eval_every: int = 0, checkpoint_every: int = 0, profile: str = "fast") -> str:
        """The job file: JSON is YAML."""
        w = self._workload
        train = {
            "model": {"layers": w.layers, "hidden": w.hidden, "heads": w.heads, "context": w.context},
            "data": {"uri": str(self._corpus)},
            "tokenizer": {"kind": "bytes", "vocabSize": VOCABULARY},
            "steps": steps,
            "batch": {"sequences": w.sequences, "microBatches": w.micro_batches},
            "eval": {"every": eval_every},
            "precision": "float32",
        }
        spec = {
            "nodes": {"min": 1, "max": 2},
            "resources": {"workersPerNode": w.world_size // 2, "threadsPerWorker": 1},
            "recovery": {"profile": profile, "maxRestarts": {"process": 100000}},
            "checkpoint": {"intervalSteps": checkpoint_every},
            "train": train,
        }
        job: Mapping[str, Any] = {
            "apiVersion": "trainctl.dev/v1",
            "kind": "TrainJob",
            "metadata": {"name": "bench"},
            "spec": spec,
        }
        return json.dumps(job)

    def start(self) -> None:
        self.system.up()
        self.system.submit(self.spec(steps=ENDLESS, checkpoint_every=CHECKPOINT_EVERY))

    def commits(self) -> Sequence[tuple[int, float]]:
        return [(f.step, f.wall_s) for f in self.system.figures("bench")]

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> float:
        pid = workers(self.system.job("bench"))[rank].pid
        now_s = time.time()
        os.kill(pid, number)
        return now_s

    def whole(self) -> bool:
        job = self.system.job("bench")
        pids = [w.pid for w in workers(job).values()]
        alive = all((p := identify(pid)) is not None and is_alive(p) for pid in pids)
        return job.status.phase == "RUNNING" and len(pids) == self._workload.world_size and alive

    def stop(self) -> None:
        self.system.down()
