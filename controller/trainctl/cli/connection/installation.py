"""The local installation's folder: how to talk to the controller in it, and what to do where none answers."""

from __future__ import annotations

from pathlib import Path

from trainctl.core.errors import PermissionDeniedError, UsageError
from trainctl.core.system.given_files import TOKEN_BYTES, read_given
from trainctl.core.system.run_folder import ControllerEnd

_MAX_AUTHORITY_BYTES = 1024 * 1024


def frozen_hint(pid: int, dir_option: str = "") -> str:
    """What helps against a local controller that does not answer; ``dir_option`` as ``Context.dir_option`` gives it."""
    return (
        f"its process {pid} lives: trainctl doctor looks why. If it stays silent: kill -KILL {pid} && "
        f"trainctl local up{dir_option}; the agents and their workers go on meanwhile"
    )


def remedy(end: ControllerEnd, dir_option: str = "") -> str:
    """What its error said to do, and the command for that; ``dir_option`` as ``Context.dir_option`` gives it."""
    start = f"to start it: trainctl local up{dir_option}"
    return f"{end.hint}; {start}" if end.hint else start


def read_token(path: Path) -> str:
    """The bearer token in a file.

    Raises:
        PermissionDeniedError: it cannot be read.
    """
    try:
        return read_given(path, TOKEN_BYTES).decode("ascii").strip()
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
