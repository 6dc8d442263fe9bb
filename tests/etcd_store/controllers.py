"""Controllers as processes beside one etcd, each with a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from etcd_store.servers import EtcdCluster
from trainctl.protos.channels import COMMON_OPTIONS
from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from trainctl.protos.version import call_metadata
from waiting import PATIENCE_S

TTL_S = 2
TOKEN = "0123456789"
_OWN_CONNECTION = (
    *COMMON_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
)
"""As a client that was just started: else gRPC hands on how long the last one was still to wait."""


@dataclass
class ControllerProcess:
    """One of them, with a folder of its own.

    Attributes:
        folder: its own.
        store: address of the store.
        flags: further ones.
        environment: variables beside this process's own.
        module: what is run.
    """

    folder: Path
    store: str
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = "trainctl.controller"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; where it listens, and what it says, stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "token").write_text(TOKEN)
        program = [sys.executable, "-m", self.module, "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*program, "--store", self.store, "--lease-ttl", f"{TTL_S}s", *self.flags],
                stderr=log,
                stdout=log,
                env={**os.environ, **self.environment},
            )

    @property
    def address(self) -> str:
        """Where it listens, as soon as it does."""
        return self._written("address")

    @property
    def metrics_address(self) -> str:
        """Where it serves metrics, as soon as it does."""
        return self._written("metrics_address")

    def _written(self, name: str) -> str:
        assert self.process is not None
        try:
            record = json.loads((self.folder / "controller.json").read_text())
        except (FileNotFoundError, ValueError):
            return ""
        return str(record[name]) if record["pid"] == self.process.pid else ""

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL for whichever life of it runs, and its end awaited."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()


@contextmanager
def two_controllers(etcd: EtcdCluster, folder: Path) -> Iterator[list[ControllerProcess]]:
    store = etcd.address(prefix=f"/{folder.name}")
    both = [ControllerProcess(folder / name, store) for name in ("a", "b")]
    with ExitStack() as stack:
        for one in both:
            one.start()
            stack.callback(one.kill)
        deadline = time.monotonic() + PATIENCE_S
        while not all(one.address for one in both):
            assert time.monotonic() < deadline, "\n".join(one.log for one in both)
            time.sleep(0.01)
        try:
            yield both
        except BaseException as error:
            error.add_note("\n\n".join(f"{one.folder}:\n{one.log[-4000:]}" for one in both))
            raise


def answers(address: str) -> bool:
    """Whether the controller at ``address`` leads: one that stands by refuses."""
    with grpc.insecure_channel(address, options=_OWN_CONNECTION) as channel:
        try:
            request = job_pb2.ListJobsRequest(tenant="default")
            job_pb2_grpc.JobServiceStub(channel).ListJobs(request, timeout=1.0, metadata=call_metadata(TOKEN))
        except grpc.RpcError:
            return False
    return True
