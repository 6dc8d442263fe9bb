"""The local installation's folder: who runs in it, and how to talk to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainctl.cli.given_files import read_given
from trainctl.core.errors import PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.plain import is_mapping
from trainctl.core.system.processes import ProcessId, is_alive
from trainctl.core.units import format_time

R = TypeVar("R")
_MAX_TOKEN_BYTES = 64 * 1024
_MAX_AUTHORITY_BYTES = 1024 * 1024


def frozen_hint(pid: int, dir_option: str = "") -> str:
    """What helps against a local controller that does not answer; ``dir_option`` as ``Context.dir_option`` gives it."""
    return (
        f"its process {pid} lives: trainctl doctor looks why. If it stays silent: kill -KILL {pid} && "
        f"trainctl local up{dir_option}; the agents and their workers go on meanwhile"
    )


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

    def remedy(self, dir_option: str = "") -> str:
        """What its error said to do, and the command for that; ``dir_option`` as ``Context.dir_option`` gives it."""
        start = f"to start it: trainctl local up{dir_option}"
        return f"{self.hint}; {start}" if self.hint else start


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAgent:
    """An agent's process as ``RUN/nodes/<node>/agent.json`` names it."""

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
    return _read_record(
        run_dir / "controller.json",
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


def read_end(run_dir: Path) -> ControllerEnd | None:
    """Why none runs in this folder, if the newest one ended by itself; None if one runs, or was stopped or killed.

    Raises:
        PermissionDeniedError: the file belongs to somebody else.
        PreconditionError: the file is damaged.
    """
    return _read_record(
        run_dir / "ended.json",
        lambda data: ControllerEnd(
            at_s=float(data["at_s"]), code=str(data["code"]), message=str(data["message"]), hint=str(data["hint"])
        ),
    )


def read_agents(run_dir: Path) -> tuple[LocalAgent, ...]:
    """The agents that were started last in this folder, by node name."""
    agents: list[LocalAgent] = []
    for path in sorted(run_dir.glob("nodes/*/agent.json")):
        data = _read_json(path)
        try:
            if data is not None:
                agents.append(LocalAgent(node=path.parent.name, process=_process(data)))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path) from error
    return tuple(agents)


def read_token(path: Path) -> str:
    """The bearer token in a file.

    Raises:
        PermissionDeniedError: it cannot be read.
    """
    try:
        return read_given(path, _MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a token"
        raise PermissionDeniedError(
            f"cannot read the token file {path}: {reason}", hint="give the right one with --token-file"
        ) from error


def read_authority(path: Path, origin: str) -> bytes:
    """The certificates of an authority, PEM, in a file.

    Raises:
        PermissionDeniedError: it cannot be read.
        UsageError: it holds no certificate.
    """
    hint = "it is ca.crt in the folder tls of the controller's --dir; name a copy of it with --ca-file"
    try:
        found = read_given(path, _MAX_AUTHORITY_BYTES)
    except OSError as error:
        raise PermissionDeniedError(f"{origin}: cannot read {path}: {error.strerror}", hint=hint) from error
    if b"-----BEGIN CERTIFICATE-----" not in found or not found.isascii():
        raise UsageError(f"{origin}: expected certificates in PEM form in {path}, found none", hint=hint)
    return found


def _process(data: Mapping[str, Any]) -> ProcessId:
    return ProcessId(pid=int(data["pid"]), start_ticks=int(data["start_ticks"]))


def _read_record(path: Path, make: Callable[[Mapping[str, Any]], R]) -> R | None:
    """What ``make`` makes of a file; None if there is none."""
    data = _read_json(path)
    if data is None:
        return None
    try:
        return make(data)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _read_json(path: Path) -> Mapping[str, Any] | None:
    try:
        data: object = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDeniedError(f"cannot read {path}: {error.strerror}", hint="check who owns it") from error
    except ValueError as error:
        raise _damaged(path) from error
    if not is_mapping(data):
        raise _damaged(path)
    return data


def _damaged(path: Path) -> PreconditionError:
    return PreconditionError(
        f"{path} is damaged: expected what trainctl wrote there", hint="delete it if nothing runs in this folder"
    )
