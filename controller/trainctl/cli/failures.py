"""From an exception to what the user sees and the exit code says."""

from __future__ import annotations

import errno
import os
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.terminal.console import OutputError
from trainctl.core.errors import PermissionDeniedError, TrainctlError, UnavailableError, UsageError
from trainctl.core.texts import bounded

_HINTS: Mapping[int, str] = {
    exit_codes.FAILURE: "the controller's log has more, under the request-id below",
    exit_codes.USAGE: "`trainctl version` shows whether command and controller belong together",
    exit_codes.NOT_FOUND: "`trainctl get jobs` lists all jobs",
    exit_codes.CONFLICT: "`trainctl get jobs` shows what there is",
    exit_codes.PERMISSION: "`trainctl config explain` shows which token is used",
    exit_codes.PRECONDITION: "`trainctl explain {name}` says where the job is",
    exit_codes.UNAVAILABLE: "try again; `trainctl doctor` tells more",
}
"""For a controller's error that brings none of its own."""


_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""A file cannot be what somebody said it is."""
_OF_ROOM: Mapping[int, str] = {
    errno.ENOSPC: "make room on that disk, and try again",
    errno.EDQUOT: "make room within your quota, and try again",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n), and try again",
    errno.ENFILE: "too many files are open on this machine: end something, and try again",
}
"""What the machine lacks."""


def report(context: Context, error: Exception, *, debug: bool) -> int:
    """Writes ``error: ...``, ``hint: ...`` and ``request-id: ...``; returns the exit code."""
    if debug:
        context.console.complain(traceback.format_exc().rstrip())
    if not isinstance(error, TrainctlError):
        error = _deliberate(error, debug=debug)
    style = context.console.style(context.console.err)
    said = str(error)
    if isinstance(error, OutputError) and context.changed:
        said += "; what the command was to change is changed all the same"
    first, *rest = map(bounded, said.split("\n"))
    lines = [f"{style.paint('error:', 'red')} {first} ({error.code})", *rest]
    hint = error.hint or (_own_hint(context, error) if error.request_id else "")
    if hint:
        lines.append(f"{style.paint('hint:', 'cyan')} {bounded(hint)}")
    request_id = context.request_id or error.request_id
    if request_id:
        lines.append(f"request-id: {request_id}")
    context.console.complain(lines)
    return error.exit_code


def _own_hint(context: Context, error: TrainctlError) -> str:
    name = getattr(context.options, "name", None) or "NAME"
    return _HINTS.get(error.exit_code, _HINTS[exit_codes.FAILURE]).format(name=name)


def _deliberate(error: Exception, *, debug: bool) -> TrainctlError:
    """Gives an exception that nobody expected the shape of one of ours."""
    if isinstance(error, MemoryError):
        return UnavailableError("out of memory", hint="is the machine overloaded? try again")
    if isinstance(error, PermissionError) and error.filename:
        return PermissionDeniedError(f"{error.filename}: {error.strerror}", hint="check who owns it")
    if isinstance(error, OSError) and error.errno in _OF_NAMES:
        return UsageError(f"{error.filename or 'a file'}: {error.strerror}", hint="name another file or folder")
    if isinstance(error, OSError) and (hint := _OF_ROOM.get(error.errno or 0)):
        return UnavailableError(f"{error.filename or 'a file'}: {error.strerror}", hint=hint)
    where = "above" if debug else f"in {_keep_traceback()}"
    failure = TrainctlError(
        f"internal error: {type(error).__name__}: {error}",
        hint=f"this is a bug of trainctl; the traceback is {where}, please report it",
    )
    failure.exit_code = exit_codes.FAILURE
    return failure


def _keep_traceback() -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f"trainctl-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(name)
