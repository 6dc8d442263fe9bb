"""Runs somebody's own program in this process, as ``python`` would."""

from __future__ import annotations

import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trainctl.core.errors import PreconditionError, UsageError
from trainctl.parallel.plan.program import EXPECTED, python_program
from trainctl.parallel.replica.generators import seed_generators
from trainctl.parallel.session.attachment import OpenSession

_SEED = 0
"""What torch's generators begin with, unless the program seeds them itself."""


class ProgramError(PreconditionError):
    """The program cannot be run, or did not do what a worker has to do."""

    code = "PROGRAM_UNUSABLE"


def run_program(command: Sequence[str], workdir: str) -> None:
    """Runs ``[python, SCRIPT, ...]`` or ``[python, -m, MODULE, ...]`` to its end, in ``workdir`` if one is given.

    It runs in this process, which has torch loaded already, so a replacement is there in a fraction of a second. It
    begins with torch's generators seeded alike on every worker, so that all draw the same initial weights.

    Raises:
        ProgramError: it is not there, or exited with another code than 0.
        UsageError: the command is no Python program.
    """
    program = python_program(command)
    if program is None:
        raise UsageError(f"spec.command: {EXPECTED} for launch mode session, found: {shlex.join(command)}")
    _enter(workdir)
    name = program.script or program.module
    sys.argv = [name, *program.arguments]
    seed_generators(_SEED)
    try:
        if program.module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(program.module, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(program.script).absolute().parent))
            runpy.run_path(program.script, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise ProgramError(f"{name} ended with exit code {end.code}", hint="its last lines say why") from end
    except FileNotFoundError as error:
        if program.script and not os.path.exists(program.script):
            raise ProgramError(
                f"expected the script {program.script} in {os.getcwd()}, found nothing there",
                hint="give an absolute path that every node has, or set spec.launch.workdir",
            ) from error
        raise
    except PermissionError as error:
        if program.script and error.filename == program.script:
            raise ProgramError(
                f"the script {program.script} cannot be read by the worker's user",
                hint="give that user access to it on every node",
            ) from error
        raise


def check_finished(session: OpenSession | None) -> None:
    """Sees that the program trained to the end.

    Raises:
        ProgramError: it opened no session, or left its loop too early.
    """
    if session is None:
        raise ProgramError(
            "the program ended without a session",
            hint="call Session.open(), or use spec.launch.mode: torchrun for a program that knows no session",
        )
    if not session.done:
        how_far = f"after step {session.applied_step}" if session.applied_step > 0 else "before its first step"
        raise ProgramError(
            f"expected the program to train to its last step, but it ended {how_far}",
            hint="loop `while not session.done` around `with session.step()`",
        )


def _enter(workdir: str) -> None:
    if not workdir:
        return
    try:
        os.chdir(workdir)
    except OSError as error:
        raise ProgramError(
            f"cannot work in {workdir}: {error.strerror}", hint="spec.launch.workdir must exist on every node"
        ) from error
