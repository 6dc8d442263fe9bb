"""What a command of launch mode ``session`` may be: a Python program, since it runs inside the worker's process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")
_HARMLESS = frozenset({"-u", "-B"})
EXPECTED = "expected [python, SCRIPT.py, ...] or [python, -m, MODULE, ...]"


@dataclass(frozen=True, slots=True)
class PythonProgram:
    """A script or a module, and what comes after it.

    Attributes:
        script: path of the script; empty for a module.
        module: dotted name of the module; empty for a script.
        arguments: what the program finds in ``sys.argv[1:]``.
    """

    script: str
    module: str
    arguments: tuple[str, ...]


def python_program(command: Sequence[str]) -> PythonProgram | None:
    """The program that a command means; None if it is no Python program."""
    if not command or not _PYTHON.fullmatch(command[0]):
        return None
    rest = list(command[1:])
    while rest and rest[0] in _HARMLESS:
        rest.pop(0)
    if len(rest) >= 2 and rest[0] == "-m":
        return PythonProgram("", rest[1], tuple(rest[2:]))
    if rest and not rest[0].startswith("-"):
        return PythonProgram(rest[0], "", tuple(rest[1:]))
    return None
