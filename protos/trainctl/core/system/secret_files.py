"""Values of ``spec.secretEnv``: a file each, in a folder of this machine; they go nowhere but into the workers."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from trainctl.core.errors import PreconditionError

_MOST_BYTES = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretUnusableError(PreconditionError):
    """A secret that a job wants cannot be had on this node."""

    code = "SECRET_UNUSABLE"


def read_secrets(folder: Path | None, names: Sequence[str]) -> dict[str, str]:
    """The values, by name, without a line break at the end.

    Args:
        folder: what the agent was started with; None: it has no secrets.
        names: of variables, and so of files.

    Raises:
        SecretUnusableError: one is missing, or others could read or change it; no value is told.
    """
    if names and folder is None:
        raise SecretUnusableError(
            f"spec.secretEnv: the job wants {', '.join(names)}, and this agent has no secrets",
            hint="start it with --secrets DIR (trainctl local up --secrets DIR), one file a name",
        )
    return {name: _read(folder, name) for name in names} if folder is not None else {}


def _read(folder: Path, name: str) -> str:
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise SecretUnusableError(f"spec.secretEnv: {name!r} is no name of a file")
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SecretUnusableError(
            f"spec.secretEnv: {path} cannot be read: {error.strerror}", hint="put the value into that file, mode 600"
        ) from error
    with _regular(descriptor, path) as file:
        state = os.fstat(file.fileno())
        if stat.S_IMODE(state.st_mode) & _OTHERS:
            raise SecretUnusableError(
                f"spec.secretEnv: {path} is open to others than its owner", hint=f"chmod 600 {path}"
            )
        data = file.read(_MOST_BYTES + 1)
    try:
        value = data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise SecretUnusableError(f"spec.secretEnv: {path} is not text (UTF-8)") from error
    if len(data) > _MOST_BYTES or "\0" in value:
        raise SecretUnusableError(f"spec.secretEnv: {path}: expected at most 64 KiB without zero bytes")
    return value


def _regular(descriptor: int, path: Path) -> BinaryIO:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise SecretUnusableError(f"spec.secretEnv: {path} is no regular file")
