"""Reading a job file from disk or stdin: one clear error for each way in which that can fail."""

from __future__ import annotations

from typing import BinaryIO

from trainctl.cli.terminal.standard_streams import read_input, standard_input
from trainctl.controller.domain.spec.yaml_text import MAX_BYTES, line_and_column
from trainctl.core.errors import NotFoundError, PermissionDeniedError, Problem, SpecError, UsageError
from trainctl.core.system.given_files import read_given

STDIN = "-"
_STDIN_NAMES = (STDIN, "/dev/stdin")
_OF_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")


def read_job_file(name: str, *, stdin: BinaryIO | None = None) -> tuple[str, str]:
    """The text of a job file and the name to call it by in messages; never reads more than a byte over the limit.

    Args:
        name: path, or ``-`` for stdin.
        stdin: where ``-`` reads from, by default this process's stdin.

    Raises:
        NotFoundError: there is no such file.
        PermissionDeniedError: it may not be read.
        UsageError: it is a folder, a named pipe or a device: reading it may never end; or stdin is closed.
        SpecError: it is too large, or not text.
    """
    if not name:
        raise UsageError("-f: expected a file, found an empty text", hint="is the variable in it set? - reads stdin")
    if name in _STDIN_NAMES:
        return _text(read_input(stdin or standard_input(), MAX_BYTES + 1), "<stdin>"), "<stdin>"
    try:
        data = read_given(name, MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"job file {name} does not exist", hint="give an existing file, or - for stdin") from error
    except IsADirectoryError as error:
        raise UsageError(f"job file {name} is a folder", hint="give a file in it, such as job.yaml") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"job file {name} cannot be read by this user", hint="check who owns it") from error
    except OSError as error:
        raise UsageError(
            f"job file {name} cannot be read: {error.strerror}", hint="give a regular file, or - to read stdin"
        ) from error
    return _text(data, name), name


def _text(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        problem = Problem(path="", message=f"expected at most {MAX_BYTES // 1024} KiB, found more")
        raise SpecError((problem,), source=source, hint="is this really a job file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = _not_text(data, error.start)
        hint = "is it UTF-16? save it as UTF-8" if data.startswith(_OF_OTHER_ENCODINGS) else "is it binary?"
        raise SpecError((problem,), source=source, hint=hint) from error


def _not_text(data: bytes, offset: int) -> Problem:
    line, column = line_and_column(data[:offset].decode("utf-8"))
    message = f"expected UTF-8 text, found a byte 0x{data[offset]:02x}"
    return Problem(path="", message=message, line=line, column=column)
