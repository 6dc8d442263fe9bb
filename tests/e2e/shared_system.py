"""etcd, two controllers and some agents as processes, with wires between them that can be hurt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from e2e.local_system import LocalSystem
from e2e.network import Network, Wire
from etcd_store.controllers import TOKEN, ControllerProcess, answers
from etcd_store.servers import EtcdCluster
from trainctl.protos.v1 import job_pb2
from waiting import PATIENCE_S


@dataclass(slots=True)
class AgentProcess:
    """One of them."""

    node: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text(errors="replace")


@dataclass(slots=True)
class SharedSystem(LocalSystem):
    """As ``LocalSystem``, with whichever of the controllers leads.

    Attributes:
        etcd: the store.
        controllers: those that take turns; they reach each member of etcd over a wire of their own.
        agent_processes: they reach each controller over the wire in ``to_controllers``.
        to_members: wires by controller and member.
        to_controllers: wires by controller.
    """

    etcd: EtcdCluster = field(default_factory=lambda: EtcdCluster(Path()))
    controllers: tuple[ControllerProcess, ...] = ()
    agent_processes: tuple[AgentProcess, ...] = ()
    to_members: tuple[tuple[Wire, ...], ...] = ()
    to_controllers: tuple[Wire, ...] = ()

    @property
    def controller(self) -> Mapping[str, Any]:
        return {"address": self.leader().address}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {TOKEN}"), ("x-trainctl-wire", "1"))

    @property
    def addresses(self) -> str:
        """Of all controllers, as commands take it."""
        return ",".join(one.address for one in self.controllers if one.address)

    def leader(self, *, other_than: ControllerProcess | None = None) -> ControllerProcess:
        """Whoever answers."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for one in self.controllers:
                if one is not other_than and one.address and answers(one.address):
                    return one
        raise AssertionError(f"nobody leads:\n{self.last_words()}")

    def ask(self, *arguments: str) -> str:
        """Runs a command of the command line against all controllers; what it says."""
        token = str(self.run_dir.parent / "token")
        return self.cli(*arguments, "--address", self.addresses, "--token-file", token).stdout

    def submit(self, spec: str, *arguments: str) -> None:
        path = self.run_dir.parent / "job.yaml"
        path.write_text(spec)
        self.ask("submit", "-f", str(path), *arguments)

    def last_words(self) -> str:
        """The ends of all logs."""
        parts = [f"--- controller {one.folder.name}\n{one.log[-3000:]}" for one in self.controllers]
        parts += [f"--- agent {one.node}\n{one.log[-1500:]}" for one in self.agent_processes]
        parts += [f"--- etcd {member.name}\n{member.log[-1000:]}" for member in self.etcd.members]
        return "\n".join(parts)

    def diagnosis(self, name: str) -> str:
        return self.last_words()


@contextmanager
def shared_system(
    folder: Path,
    *,
    members: int = 1,
    agents: int = 2,
    slots: int = 2,
    flags: Sequence[str] = (),
    etcd_flags: Sequence[str] = (),
) -> Iterator[SharedSystem]:
    """Runs all of it for as long as the block lasts.

    Args:
        folder: of everything.
        members: of etcd.
        agents: how many.
        slots: of each agent.
        flags: further flags of the controllers.
        etcd_flags: of the members.
    """
    with (
        EtcdCluster(folder / "etcd", members, flags=etcd_flags) as etcd,
        Network() as network,
        ExitStack() as stack,
    ):
        system = SharedSystem(folder / "local", etcd=etcd)
        (folder / "token").write_text(TOKEN)
        to_members = [
            tuple(network.wire(partial(_local, member.client_port)) for member in etcd.members) for _ in range(2)
        ]
        controllers = [
            _controller(folder, name, wires, flags) for name, wires in zip(("a", "b"), to_members, strict=True)
        ]
        for one in controllers:
            one.start()
            stack.callback(one.kill)
        wires = tuple(network.wire(partial(_address, one)) for one in controllers)
        system.controllers, system.to_members, system.to_controllers = tuple(controllers), tuple(to_members), wires
        _wait_listening(system)
        targets = ",".join(wire.address for wire in wires)
        system.agent_processes = tuple(_agent(folder, f"node-{n}", targets, slots, stack) for n in range(agents))
        try:
            yield system
        except BaseException as error:
            error.add_note(system.last_words())
            raise


def _controller(folder: Path, name: str, wires: Sequence[Wire], flags: Sequence[str]) -> ControllerProcess:
    hosts = ",".join(wire.address for wire in wires)
    return ControllerProcess(folder / name, f"etcd://{hosts}/chaos", flags=("--jobs", str(folder / "jobs"), *flags))


def _local(port: int) -> str:
    return f"127.0.0.1:{port}"


def _address(one: ControllerProcess) -> str:
    return one.address


def _wait_listening(system: SharedSystem) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(one.address for one in system.controllers):
        assert time.monotonic() < deadline, system.last_words()
        time.sleep(0.01)


def _agent(folder: Path, node: str, targets: str, slots: int, stack: ExitStack) -> AgentProcess:
    where = folder / "nodes" / node
    where.mkdir(parents=True)
    options = ["--controller", targets, "--node", node, "--slots", str(slots), "--dir", str(where)]
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainctl.agent", *options, "--token-file", str(folder / "token")],
            stdout=log,
            stderr=log,
            env={**os.environ, "TRAINCTL_HOME": str(folder)},
        )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return AgentProcess(node, where, process)


def lives(job: job_pb2.Job) -> set[tuple[int, int, int]]:
    """Slot, incarnation and process of each worker."""
    return {(w.slot, w.incarnation, w.pid) for island in job.status.islands for w in island.workers}
