"""Who runs in the folder of a local installation, and why nobody does: those who write it and read it agree here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainctl.core.errors import PermissionDeniedError, PreconditionError
from trainctl.core.json_text import read_object
from trainctl.core.system.files import write_atomically
from trainctl.core.system.processes import ProcessId, is_alive
from trainctl.core.units import format_time

CONTROLLER_FILE = "controller.json"
END_FILE = "ended.json"
NODES = "nodes"
"""Folder with a folder for each node."""
AGENT_FILE = "agent.json"

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalController:
    """What ``RUN/controller.json`` says; the process may be gone by now.

    Attributes:
        process: its identity.
        address: host:port of its API.
        version: of its package.
        metrics_address: host:port of its metrics, or empty.
        started_s: Unix seconds.
        ca_file: whom to trust for it; empty: it has no TLS.
        secrets: folder of its agents' secrets; empty: they have none.
    """

    process: ProcessId
    address: str
    version: str = ""
    metrics_address: str = ""
    started_s: float = 0.0
    ca_file: str = ""
    secrets: str = ""

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return is_alive(self.process)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerEnd:
    """Why the newest controller of a folder ended by itself, as ``RUN/ended.json`` says; Unix seconds."""

    at_s: float
    code: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"the newest one ended by itself at {format_time(self.at_s)}: {self.message} ({self.code})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAgent:
    """An agent's process as ``RUN/nodes/<node>/agent.json`` names it; it may be gone by now."""

    node: str
    process: ProcessId

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return is_alive(self.process)


def read_controller(run_dir: Path) -> LocalController | None:
    """The controller that was started last in this folder, None if there never was one.

    Raises:
        PermissionDeniedError: the file belongs to somebody else.
        PreconditionError: the file is damaged.
    """
    return _read(
        run_dir / CONTROLLER_FILE,
        lambda data: LocalController(
            process=_process(data),
            address=str(data["address"]),
            version=str(data.get("version", "")),
            metrics_address=str(data.get("metrics_address", "")),
            started_s=float(data.get("started_s", 0)),
            ca_file=str(data.get("ca_file", "")),
            secrets=str(data.get("secrets", "")),
        ),
    )


def write_controller(run_dir: Path, controller: LocalController) -> None:
    """Says who runs here now; why none did is over."""
    fields = asdict(controller)
    _write(run_dir / CONTROLLER_FILE, fields.pop("process") | fields)
    (run_dir / END_FILE).unlink(missing_ok=True)


def read_end(run_dir: Path) -> ControllerEnd | None:
    """Why none runs in this folder, if the newest one ended by itself; None if one runs, or was stopped or killed.

    Also None if that cannot be read: it only explains, and is no reason to fail.
    """
    try:
        return _read(
            run_dir / END_FILE,
            lambda data: ControllerEnd(
                at_s=float(data["at_s"]), code=str(data["code"]), message=str(data["message"]), hint=str(data["hint"])
            ),
        )
    except (OSError, PermissionDeniedError, PreconditionError):
        return None


def write_end(run_dir: Path, end: ControllerEnd) -> None:
    """Says why none will run here in a moment."""
    _write(run_dir / END_FILE, asdict(end))


def read_agents(run_dir: Path) -> tuple[LocalAgent, ...]:
    """The agents that were started last in this folder, by node name.

    Raises:
        PermissionDeniedError: a file belongs to somebody else.
        PreconditionError: a file is damaged.
    """
    folders = sorted(path.parent for path in run_dir.glob(f"{NODES}/*/{AGENT_FILE}"))
    return tuple(agent for folder in folders if (agent := read_agent(folder)) is not None)


def read_agent(folder: Path) -> LocalAgent | None:
    """The agent that was started last in the folder of a node, None if there never was one.

    Raises:
        PermissionDeniedError: the file belongs to somebody else.
        PreconditionError: the file is damaged.
    """
    return _read(folder / AGENT_FILE, lambda data: LocalAgent(node=folder.name, process=_process(data)))


def write_agent(folder: Path, process: ProcessId, *, slots: int) -> None:
    """Says which process is the agent of a node, and with how many slots."""
    _write(folder / AGENT_FILE, asdict(process) | {"slots": slots})


def _process(data: Mapping[str, Any]) -> ProcessId:
    return ProcessId(pid=int(data["pid"]), start_ticks=int(data["start_ticks"]))


def _read(path: Path, make: Callable[[Mapping[str, Any]], R]) -> R | None:
    """What ``make`` makes of a file; None if there is none."""
    try:
        return make(read_object(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDeniedError(f"cannot read {path}: {error.strerror}", hint="check who owns it") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PreconditionError(
            f"{path} is damaged: expected what trainctl wrote there", hint="delete it if nothing runs in this folder"
        ) from error


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(fields).encode() + b"\n")
