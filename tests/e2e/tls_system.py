"""An installation with TLS: a controller, and agents on "other machines" that join it with tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from e2e.local_system import LocalSystem
from multiproc.agent_support.controller import FAKE_STORE, FAKE_WORKER, ROOT
from trainctl.protos.v1 import job_pb2, job_pb2_grpc, join_pb2, join_pb2_grpc
from trainctl.protos.version import call_metadata
from waiting import PATIENCE_S, until

FAKES = ("--worker-entry", FAKE_WORKER, "--store-entry", FAKE_STORE, "--preload", "")
"""Options of an agent that never loads torch."""


@dataclass
class Process:
    """A controller or an agent, with all that it says in a file."""

    command: list[str]
    log_file: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; the log goes on where it was."""
        parts = ("protos", "parallel", "checkpoint", "controller", "agent", "tests")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in parts)}
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.running = subprocess.Popen(self.command, env=env, stdout=log, stderr=log, start_new_session=True)

    @property
    def log(self) -> str:
        """What it said."""
        return self.log_file.read_text()

    def said(self, *words: str) -> None:
        """Waits until all these words are in its log."""

        def all_said() -> bool:
            running = self.running is None or self.running.poll() is None
            if all(word in self.log for word in words):
                return True
            assert running, f"it ended; expected {words} in\n{self.log}"
            return False

        until(all_said, lambda: f"expected {words} in\n{self.log}")

    def exit_code(self) -> int:
        """Waits for its end."""
        assert self.running is not None
        return self.running.wait(PATIENCE_S)

    def end(self) -> None:
        """Ends it, if it runs."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()


@dataclass(slots=True)
class TlsSystem(LocalSystem):
    """One controller with TLS; ``stack`` ends its agents."""

    stack: ExitStack = field(default_factory=ExitStack)
    people_ca: Path | None = None

    @property
    def authority(self) -> Path:
        """Whom people trust."""
        return self.people_ca or self.run_dir / "tls" / "ca.crt"

    def stub(self) -> tuple[grpc.Channel, job_pb2_grpc.JobServiceStub]:
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        channel = grpc.secure_channel(self.controller["address"], credentials)
        return channel, job_pb2_grpc.JobServiceStub(channel)

    def token(self, *arguments: str, name: str = "join") -> Path:
        """A file with a new join token."""
        path = self.run_dir.parent / name
        path.unlink(missing_ok=True)
        self.cli("nodes", "join-token", "--out", str(path), *arguments)
        return path

    def agent(self, node: str, *arguments: str, controllers: str = "", folder: str = "") -> Process:
        """An agent of a machine, started."""
        place = self.run_dir.parent / "machines" / (folder or node)
        where = ("--controller", controllers or self.controller["address"], "--node", node, "--dir", str(place))
        command = [sys.executable, "-m", "trainctl.agent", *where, *arguments]
        process = Process(command, place.with_suffix(".log"))
        process.start()
        self.stack.callback(process.end)
        return process

    def call_time_s(self) -> float:
        """Unix time of the controller's clock."""
        answer: job_pb2.GetVersionResponse = self.call("GetVersion", job_pb2.GetVersionRequest())
        return answer.time_s

    def agents_port(self) -> int:
        """Where agents open their sessions."""
        channel, _ = self.stub()
        with closing(channel):
            located = join_pb2_grpc.JoinServiceStub(channel).Locate(
                join_pb2.LocateRequest(), timeout=10, metadata=call_metadata("")
            )
        return int(located.agents_address.rpartition(":")[2])

    def node(self, name: str) -> job_pb2.NodeStatus:
        return next(node for node in self.nodes() if node.node == name)


def controller_process(folder: Path, *arguments: str) -> Process:
    """A controller that listens on the loopback."""
    command = [sys.executable, "-m", "trainctl.controller", "--dir", str(folder), *arguments]
    return Process(command, folder.parent / f"{folder.name}.log")


@contextmanager
def tls_system(folder: Path, *arguments: str, people_ca: Path | None = None) -> Iterator[TlsSystem]:
    """A controller with TLS in ``folder/local``, for as long as the block lasts."""
    process = controller_process(folder / "local", "--tls", *arguments)
    with ExitStack() as stack:
        process.start()
        stack.callback(process.end)
        process.said("controller serves")
        try:
            env = {"TRAINCTL_CA_FILE": str(people_ca)} if people_ca is not None else {}
            yield TlsSystem(folder / "local", stack=stack, people_ca=people_ca, env=env)
        except BaseException as error:
            logs = [process.log_file, *folder.glob("machines/*.log")]
            error.add_note("\n\n".join(f"{log}:\n{log.read_text()[-4000:]}" for log in logs))
            raise
