"""The controller's folder: who runs in it, the token, where everything lies."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl.core.errors import ConflictError, PermissionDeniedError, PreconditionError, TrainctlError
from trainctl.core.plain import is_mapping
from trainctl.core.system.files import write_atomically
from trainctl.core.system.processes import ProcessId, identify, is_alive


class AlreadyRunningError(ConflictError):
    """A controller runs in this folder."""

    code = "CONTROLLER_RUNNING"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why the newest controller of a folder ended by itself, before it served or later; Unix seconds."""

    at_s: float
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths in the folder ``root``."""

    root: Path

    @property
    def token_file(self) -> Path:
        """The bearer token, readable by the owner only."""
        return self.root / "token"

    @property
    def controller_file(self) -> Path:
        """Who runs here and where it listens; stays behind, so that the next one takes the same port."""
        return self.root / "controller.json"

    @property
    def end_file(self) -> Path:
        """Why the newest one ended by itself; gone as soon as one runs again."""
        return self.root / "ended.json"

    @property
    def store_file(self) -> Path:
        """The state store."""
        return self.root / "store.sqlite3"

    @property
    def sighting_file(self) -> Path:
        """How the store was left."""
        return self.root / "store-seen.json"

    @property
    def tls(self) -> Path:
        """The installation's own certificate authority."""
        return self.root / "tls"

    @property
    def nodes(self) -> Path:
        """A folder for each local node."""
        return self.root / "nodes"

    @property
    def jobs(self) -> Path:
        """A work folder for each job."""
        return self.root / "jobs"

    @property
    def figures(self) -> Path:
        """Step figures of each job."""
        return self.root / "figures"

    def prepare(self) -> None:
        """Makes the folder, or checks that it can be used.

        Raises:
            PermissionDeniedError: it cannot be made or written.
            AlreadyRunningError: a controller runs in it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermissionDeniedError(
                f"cannot make the folder {self.root}: {error.strerror}", hint="give another one with --dir"
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise PermissionDeniedError(
                f"the folder {self.root} cannot be written by this user", hint="give another one with --dir"
            )
        other = self.running()
        if other is not None:
            raise AlreadyRunningError(
                f"a controller runs in {self.root} already: process {other.pid}",
                hint=f"use it, or stop it first: trainctl local down, or kill {other.pid}",
            )

    def token(self) -> str:
        """The token, made on first use.

        Raises:
            PreconditionError: the file is empty.
        """
        if not self.token_file.exists():
            write_atomically(self.token_file, secrets.token_hex(32).encode() + b"\n", mode=0o600)
        token = self.token_file.read_text().strip()
        if not token:
            raise PreconditionError(
                f"{self.token_file} is empty", hint="remove it; a new one is made at the next start"
            )
        return token

    def former(self) -> Mapping[str, Any]:
        """What the last controller in this folder wrote; empty if there was none."""
        try:
            data: object = json.loads(self.controller_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return data if is_mapping(data) else {}

    def former_port(self) -> int:
        """The port it listened on, 0 if unknown."""
        port = str(self.former().get("address", "")).rpartition(":")[2]
        return int(port) if port.isdigit() else 0

    def running(self) -> ProcessId | None:
        """The controller that runs here now, if one does."""
        data = self.former()
        try:
            process = ProcessId(pid=int(data["pid"]), start_ticks=int(data["start_ticks"]))
        except (KeyError, TypeError, ValueError):
            return None
        return process if is_alive(process) and process.pid != os.getpid() else None

    def write(
        self,
        *,
        address: str,
        metrics_address: str,
        version: str,
        started_s: float,
        ca_file: str = "",
        secrets: str = "",
    ) -> None:
        """Says who runs here: whoever reads the file can connect. ``secrets`` is the folder of its agents'."""
        process = identify(os.getpid())
        assert process is not None
        record = {
            "pid": process.pid,
            "start_ticks": process.start_ticks,
            "address": address,
            "metrics_address": metrics_address,
            "version": version,
            "ca_file": ca_file,
            "secrets": secrets,
            "started_s": started_s,
        }
        write_atomically(self.controller_file, json.dumps(record).encode() + b"\n")
        self.end_file.unlink(missing_ok=True)

    def write_end(self, error: Exception, at_s: float) -> None:
        """Says why this controller ends, for whoever wonders later why none runs; not if another one does.

        Raises:
            OSError: it cannot be written.
        """
        if self.running() is not None:
            return
        if isinstance(error, TrainctlError):
            record = {"at_s": at_s, "code": error.code, "message": str(error), "hint": error.hint}
        else:
            text, hint = f"{type(error).__name__}: {error}", "this is a bug of trainctl; the log has the traceback"
            record = {"at_s": at_s, "code": TrainctlError.code, "message": text, "hint": hint}
        write_atomically(self.end_file, json.dumps(record).encode() + b"\n")

    def end(self) -> End | None:
        """Why the newest controller of this folder ended by itself; None if it did not."""
        try:
            found = json.loads(self.end_file.read_text())
            return End(
                at_s=float(found["at_s"]),
                code=str(found["code"]),
                message=str(found["message"]),
                hint=str(found["hint"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
