"""The whole system as a user gets it: ``trainctl local up``, real processes, real kills; waits on conditions only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from waiting import PATIENCE_S

TRAINCTL = str(Path(sys.executable).with_name("trainctl"))
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELLED", "REJECTED"}


@dataclass(slots=True)
class LocalSystem:
    """One local installation in a folder of its own."""

    run_dir: Path
    agents: int = 2
    slots: int = 2
    env: Mapping[str, str] = field(default_factory=dict)

    def cli(
        self, *arguments: str, check: bool = True, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line as a user would."""
        own = {"TRAINCTL_HOME": str(self.run_dir.parent), "TRAINCTL_CONFIG": "", "NO_COLOR": "1"}
        environment = {**os.environ, **own, **self.env}
        done = subprocess.run(
            [TRAINCTL, *arguments], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"trainctl {' '.join(arguments)} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def up(self) -> None:
        self.cli("local", "up", "--agents", str(self.agents), "--slots", str(self.slots), "--dir", str(self.run_dir))

    def down(self) -> None:
        self.cli("local", "down", "--dir", str(self.run_dir))

    @property
    def controller(self) -> Mapping[str, Any]:
        data: Mapping[str, Any] = json.loads((self.run_dir / "controller.json").read_text())
        return data

    def stub(self) -> tuple[grpc.Channel, job_pb2_grpc.JobServiceStub]:
        channel = grpc.insecure_channel(self.controller["address"])
        return channel, job_pb2_grpc.JobServiceStub(channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        token = (self.run_dir / "token").read_text().strip()
        return (("authorization", f"Bearer {token}"), ("x-trainctl-wire", "1"))

    def call(self, method: str, request: Any, timeout_s: float = PATIENCE_S) -> Any:
        channel, stub = self.stub()
        with closing(channel):
            return getattr(stub, method)(request, timeout=timeout_s, metadata=self.metadata, wait_for_ready=True)

    def submit(self, spec: str, *arguments: str) -> None:
        path = self.run_dir.parent / "job.yaml"
        path.write_text(spec)
        self.cli("submit", "-f", str(path), *arguments)

    def job(self, name: str) -> job_pb2.Job:
        job: job_pb2.Job = self.call("GetJob", job_pb2.GetJobRequest(tenant="default", name=name)).job
        return job

    def watch(self, name: str, deadline_s: float) -> Iterator[job_pb2.Job]:
        """Every state of the job that the controller shows, until the deadline; goes on over a controller restart."""
        end_s = time.monotonic() + deadline_s
        while (left_s := end_s - time.monotonic()) > 0:
            channel, stub = self.stub()
            with closing(channel):
                request = job_pb2.WatchJobRequest(tenant="default", name=name)
                try:
                    for update in stub.WatchJob(request, timeout=left_s, metadata=self.metadata, wait_for_ready=True):
                        yield update.job
                except grpc.RpcError as error:
                    retry = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
                    if error.code() not in retry:
                        raise

    def wait(
        self, name: str, what: str, condition: Callable[[job_pb2.Job], bool], deadline_s: float = PATIENCE_S
    ) -> job_pb2.Job:
        """The first state of the job that fulfils the condition; on expiry says what the system looked like."""
        last: job_pb2.Job | None = None
        for job in self.watch(name, deadline_s):
            last = job
            if condition(job):
                return job
            if job.status.phase in TERMINAL:
                break
        raise AssertionError(f"{what}: not within {deadline_s} s\n{last}\n{self.diagnosis(name)}")

    def wait_step(self, name: str, step: int, deadline_s: float = PATIENCE_S) -> job_pb2.Job:
        return self.wait(name, f"step {step}", lambda job: job.status.step >= step, deadline_s)

    def wait_phase(self, name: str, phase: str, deadline_s: float = PATIENCE_S) -> job_pb2.Job:
        return self.wait(name, f"phase {phase}", lambda job: job.status.phase == phase, deadline_s)

    def figures(self, name: str) -> list[Any]:
        found: list[Any] = []
        while True:
            after = found[-1].step if found else 0
            request = job_pb2.ListFiguresRequest(tenant="default", name=name, after_step=after, limit=1000)
            page = self.call("ListFigures", request).figures
            if not page:
                return found
            found.extend(page)

    def events(self, name: str) -> list[job_pb2.Event]:
        return list(self.call("ListEvents", job_pb2.ListEventsRequest(tenant="default", name=name, limit=1000)).events)

    def nodes(self) -> list[job_pb2.NodeStatus]:
        return list(self.call("ListNodes", job_pb2.ListNodesRequest()).nodes)

    def agent_pid(self, node: str) -> int:
        return next(n.pid for n in self.nodes() if n.node == node)

    def diagnosis(self, name: str) -> str:
        """What a person would look at first: events, explanation, the ends of all logs; and every worker's stack."""
        for job in [self.job(name)]:
            for worker in (w for island in job.status.islands for w in island.workers):
                if worker.pid:
                    try:
                        os.kill(worker.pid, signal.SIGUSR1)
                    except ProcessLookupError:
                        continue
        parts = [self.cli("events", name, check=False).stdout, self.cli("explain", name, check=False).stdout]
        for log in sorted(self.run_dir.rglob("*.log")):
            parts.append(f"--- {log.relative_to(self.run_dir)}\n" + "\n".join(log.read_text().splitlines()[-30:]))
        return "\n".join(parts)


def workers(job: job_pb2.Job) -> dict[int, Any]:
    """The workers of the job's island by global rank."""
    return {w.global_rank: w for island in job.status.islands for w in island.workers if w.global_rank >= 0}


def tiny_job(
    name: str,
    corpus: Path,
    *,
    steps: int = 40,
    nodes: int = 2,
    min_nodes: int | None = None,
    per_node: int = 2,
    env: Mapping[str, str] | None = None,
    interval_steps: int = 0,
    replacement_wait: str = "20s",
    **train: Any,
) -> str:
    """A job file of a model small enough for a step of some 20 ms."""
    import yaml

    job = {
        "apiVersion": "trainctl.dev/v1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {
            "nodes": {"min": min_nodes or nodes, "max": nodes},
            "resources": {"workersPerNode": per_node, "threadsPerWorker": 1},
            "recovery": {"profile": "fast", "replacementWait": replacement_wait},
            "checkpoint": {"intervalSteps": interval_steps},
            "env": dict(env or {}),
            "train": {
                "task": "llama",
                "model": {"layers": 2, "hidden": 64, "heads": 4, "context": 64},
                "data": {"uri": str(corpus), "holdOutEvery": 4},
                "optimizer": {"lr": 3e-3},
                "schedule": {"kind": "constant", "warmupSteps": 5},
                "steps": steps,
                "batch": {"sequences": 24, "microBatches": 8},
                "eval": {"every": 20, "sequences": 8},
                "seed": 7,
                **train,
            },
        },
    }
    return yaml.safe_dump(job, sort_keys=False)
