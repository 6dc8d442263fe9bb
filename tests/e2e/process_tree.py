"""The processes of one local installation, found by the environment that they all inherit from ``local up``."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SERVER_LINE = re.compile(r"fork server (\d+) is up")
_STORE_LINE = re.compile(r"collective store (\d+) listens")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; ``rss_bytes`` is what it occupies now."""

    pid: int
    parent: int
    command: str
    rss_bytes: int


def processes_of(run_dir: Path) -> list[Process]:
    """All of them, whoever is their parent by now; zombies of a foreign parent have no environment and do not count."""
    needle = f"TRAINCTL_HOME={run_dir.parent}\0".encode()
    return [p for pid in _pids() if (p := _read(pid, needle)) is not None]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(pid: int, needle: bytes) -> Process | None:
    folder = Path("/proc") / str(pid)
    try:
        if needle not in folder.joinpath("environ").read_bytes() + b"\0":
            return None
        command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        fields = folder.joinpath("stat").read_text().rpartition(")")[2].split()
        pages = int(folder.joinpath("statm").read_text().split()[1])
    except (OSError, IndexError):
        return None  # it ended meanwhile, or belongs to somebody else
    return Process(pid, int(fields[1]), command, pages * os.sysconf("SC_PAGE_SIZE"))


@dataclass(frozen=True, slots=True)
class Node:
    """The processes of one node; 0 and empty for what is not there at the moment."""

    agent: int = 0
    fork_server: int = 0
    store: int = 0
    workers: tuple[int, ...] = ()


def nodes_of(run_dir: Path) -> dict[str, Node]:
    """What runs on each node now, workers that still boot included."""
    everything = processes_of(run_dir)
    nodes = {}
    for folder in sorted(run_dir.joinpath("nodes").iterdir()):
        agent = next((p.pid for p in everything if "trainctl.agent " in p.command and f" {folder} " in p.command), 0)
        log = (folder / "agent.log").read_text()
        server = _newest(_SERVER_LINE, log, {p.pid for p in everything if agent})
        children = tuple(sorted(p.pid for p in everything if server and p.parent == server))
        store = _newest(_STORE_LINE, log, set(children))
        nodes[folder.name] = Node(agent, server, store, tuple(pid for pid in children if pid != store))
    return nodes


def _newest(line: re.Pattern[str], log: str, alive: set[int]) -> int:
    """The process that the last such line tells of, if it is there."""
    told = line.findall(log)
    return int(told[-1]) if told and int(told[-1]) in alive else 0


def send(pid: int, number: signal.Signals) -> bool:
    """Signals a process that may have ended; whether it was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
