"""The controller's folder: who runs in it, the token, where everything lies."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.errors import ConflictError, PermissionDeniedError, PreconditionError, TrainctlError
from trainctl.core.system.files import write_atomically
from trainctl.core.system.given_files import TOKEN_BYTES, read_given
from trainctl.core.system.processes import ProcessId, identify
from trainctl.core.system.run_folder import (
    CONTROLLER_FILE,
    END_FILE,
    NODES,
    ControllerEnd,
    LocalController,
    read_controller,
    read_end,
    write_controller,
    write_end,
)


class AlreadyRunningError(ConflictError):
    """A controller runs in this folder."""

    code = "CONTROLLER_RUNNING"


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
        return self.root / CONTROLLER_FILE

    @property
    def end_file(self) -> Path:
        """Why the newest one ended by itself; gone as soon as one runs again."""
        return self.root / END_FILE

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
        return self.root / NODES

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
            PreconditionError: the file is empty, or holds something else.
        """
        if not self.token_file.exists():
            write_atomically(self.token_file, secrets.token_hex(32).encode() + b"\n", mode=0o600)
        found = read_given(self.token_file, TOKEN_BYTES + 1)
        token = found.strip()
        if not token or not token.isascii() or len(found) > TOKEN_BYTES:
            what = "is not a token" if token else "is empty"
            raise PreconditionError(f"{self.token_file} {what}", hint="remove it; a new one is made at the next start")
        return token.decode()

    def former(self) -> LocalController | None:
        """What the last controller in this folder wrote; None if there was none, or nobody can read it."""
        try:
            return read_controller(self.root)
        except PreconditionError:
            return None

    def former_port(self) -> int:
        """The port it listened on, 0 if unknown."""
        former = self.former()
        port = former.address.rpartition(":")[2] if former is not None else ""
        return int(port) if port.isdigit() else 0

    def running(self) -> ProcessId | None:
        """The controller that runs here now, if one does."""
        former = self.former()
        return former.process if former is not None and former.alive and former.process.pid != os.getpid() else None

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
        controller = LocalController(
            process=process,
            address=address,
            metrics_address=metrics_address,
            version=version,
            started_s=started_s,
            ca_file=ca_file,
            secrets=secrets,
        )
        write_controller(self.root, controller)

    def write_end(self, error: Exception, at_s: float) -> None:
        """Says why this controller ends, for whoever wonders later why none runs; not if another one does.

        Raises:
            OSError: it cannot be written.
        """
        if self.running() is not None:
            return
        if isinstance(error, TrainctlError):
            code, message, hint = error.code, str(error), error.hint
        else:
            code, message = TrainctlError.code, f"{type(error).__name__}: {error}"
            hint = "this is a bug of trainctl; the log has the traceback"
        write_end(self.root, ControllerEnd(at_s=at_s, code=code, message=message, hint=hint))

    def end(self) -> ControllerEnd | None:
        """Why the newest controller of this folder ended by itself; None if it did not."""
        return read_end(self.root)
