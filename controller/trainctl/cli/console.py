"""The two streams of a command: data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from trainctl.cli.style import Style


def _wants_color(stream: TextIO, env: Mapping[str, str], *, no_color: bool) -> bool:
    return not no_color and not env.get("NO_COLOR") and env.get("TERM") != "dumb" and stream.isatty()


@dataclass(slots=True)
class Console:
    """Where a command writes.

    Attributes:
        out: for data.
        err: for everything else.
        env: environment that was given to the command.
        no_color: ``--no-color``.
    """

    out: TextIO
    err: TextIO
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    no_color: bool = False

    def style(self, stream: TextIO | None = None) -> Style:
        """How to paint what goes to ``stream`` (default: ``out``)."""
        return Style(enabled=_wants_color(stream or self.out, self.env, no_color=self.no_color))

    def data(self, lines: str | Iterable[str]) -> None:
        """Writes lines of data, at once visible to whoever reads them."""
        self._write(self.out, lines)

    def say(self, lines: str | Iterable[str]) -> None:
        """Writes lines that are not data."""
        self._write(self.err, lines)

    def width(self) -> int:
        """Columns of the terminal; 80 when unknown."""
        return shutil.get_terminal_size().columns

    def _write(self, stream: TextIO, lines: str | Iterable[str]) -> None:
        for line in [lines] if isinstance(lines, str) else lines:
            stream.write(f"{line}\n")
        stream.flush()
