"""The two streams of a command: data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import TextIO, TypeGuard

from trainctl.cli.terminal.style import Style
from trainctl.core.errors import TrainctlError
from trainctl.core.texts import harmless


class OutputError(TrainctlError):
    """What is to be shown cannot be written where it should go."""

    code = "OUTPUT_FAILED"


@dataclass(slots=True)
class Console:
    """Where a command writes.

    Attributes:
        out: for data.
        err: for everything else.
        env: environment that was given to the command.
        no_color: ``--no-color``.
        quiet: ``-q``: only data and errors.
        verbose: ``-v``: also what the command does behind the scenes.
    """

    out: TextIO
    err: TextIO
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    no_color: bool = False
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        for stream in (self.out, self.err):
            if _encodes(stream):
                # A bar of question marks is better than no answer; names of files need not be UTF-8.
                stream.reconfigure(errors="backslashreplace" if _is_unicode(stream) else "replace")

    @property
    def ascii_only(self) -> bool:
        """Whether documents have to do without characters that stdout cannot take."""
        return _encodes(self.out) and not _is_unicode(self.out)

    def style(self, stream: TextIO | None = None) -> Style:
        """How to paint what goes to ``stream`` (default: ``out``)."""
        plain = self.no_color or self.env.get("NO_COLOR")
        return Style(enabled=not plain and self.draws_again(stream or self.out))

    def draws_again(self, stream: TextIO) -> bool:
        """Whether what is on ``stream`` can be drawn again: it leads to a terminal that knows escape codes."""
        return stream.isatty() and self.env.get("TERM") != "dumb"

    def data(self, lines: str | Iterable[str]) -> None:
        """Writes lines of data, at once visible to whoever reads them.

        Raises:
            OutputError: the disk is full, or stdout is closed.
            BrokenPipeError: the reader has gone.
        """
        try:
            _write(self.out, lines)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            forget(self.out)
            reason = error.strerror if isinstance(error, OSError) else "it is closed"
            raise OutputError(
                f"the output cannot be written: {reason}", hint="write it to a file on another disk"
            ) from error

    def say(self, lines: str | Iterable[str]) -> None:
        """Writes lines that are not data, unless only data is wanted."""
        if not self.quiet:
            self.complain(lines)

    def detail(self, line: str) -> None:
        """Writes a line for those who want to know exactly."""
        if self.verbose:
            self.complain(line)

    def complain(self, lines: str | Iterable[str]) -> None:
        """Writes what has to be said in any case; if nobody can hear it, that is no reason to fail."""
        try:
            _write(self.err, lines)
        except (OSError, ValueError):
            forget(self.err)

    def width(self) -> int:
        """Columns of the terminal; 80 when unknown."""
        return shutil.get_terminal_size().columns


def forget(stream: TextIO) -> None:
    """Makes the flush at exit harmless for a stream that takes nothing any more."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def _encodes(stream: TextIO) -> TypeGuard[TextIOWrapper]:
    """Whether what is written becomes bytes; a stream that keeps the text takes every character."""
    return isinstance(stream, TextIOWrapper)


def _is_unicode(stream: TextIOWrapper) -> bool:
    return stream.encoding.lower().replace("-", "").startswith("utf")


def _write(stream: TextIO, lines: str | Iterable[str]) -> None:
    """To a terminal without codes that it would obey: what workers print is somebody else's, as are names."""
    shown = harmless if stream.isatty() else str
    for line in [lines] if isinstance(lines, str) else lines:
        stream.write(f"{shown(line)}\n")
    stream.flush()
