"""From ``spec.command`` to what the kernel is asked to run: program, arguments, folder. Checked before it starts."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.records.spec import JobSpec
from trainctl.parallel.plan.command_errors import CommandUnusableError

_SCRIPT_SUFFIX = ".py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run.

    Attributes:
        arguments: the program's path first.
        folder: that it runs in.
    """

    arguments: tuple[str, ...]
    folder: Path


def search_path(env: Mapping[str, str]) -> str:
    """``PATH`` of the command: first the folder of the agent's Python, so that ``python`` is that one."""
    own = str(Path(sys.executable).parent)
    return os.pathsep.join([own, env["PATH"]]) if env.get("PATH") else own


def program_of(spec: JobSpec, *, own_folder: Path, env: Mapping[str, str]) -> Program:
    """The program of a job, with everything there that it needs to be started.

    A command that begins with a ``.py`` file is run by the agent's Python, as torchrun does.

    Args:
        spec: of the job.
        own_folder: used where the job file names no folder; made if missing.
        env: environment of the worker.

    Raises:
        CommandUnusableError: program or folder is missing, or may not be used.
    """
    try:
        return _program_of(spec, own_folder, env)
    except PermissionError as error:  # to look whether a file is there takes permission, too
        raise CommandUnusableError(f"spec.command: {error.filename} cannot be read by this user") from error


def _program_of(spec: JobSpec, own_folder: Path, env: Mapping[str, str]) -> Program:
    folder = _folder(spec.launch.workdir, own_folder)
    name = spec.command[0]
    if name.endswith(_SCRIPT_SUFFIX):
        _check_script(folder / name)
        return Program(arguments=(sys.executable, *spec.command), folder=folder)
    path = shutil.which(name if os.sep not in name else str(folder / name), path=search_path(env))
    if path is None:
        raise _missing(name, folder, env)
    return Program(arguments=(path, *spec.command[1:]), folder=folder)


def check_storage(workdir: str) -> None:
    """Sees that the command can write where it shall keep its checkpoints; a URL is taken as it is.

    Raises:
        CommandUnusableError: the folder cannot be made or written.
    """
    if not workdir or "://" in workdir:
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandUnusableError(f"the job's work folder {workdir} cannot be made: {error.strerror}") from error
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise CommandUnusableError(f"the job's work folder {workdir} cannot be written by this user")


def _folder(wanted: str, own: Path) -> Path:
    if not wanted:
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandUnusableError(f"the command's folder {own} cannot be made: {error.strerror}") from error
        return own
    folder = Path(wanted)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise CommandUnusableError(f"spec.launch.workdir: {folder} {what}")
    if not os.access(folder, os.X_OK):
        raise CommandUnusableError(f"spec.launch.workdir: {folder} cannot be entered by this user")
    return folder


def _check_script(path: Path) -> None:
    if not path.is_file():
        raise CommandUnusableError(f"spec.command: expected the script {path}, found no such file")
    if not os.access(path, os.R_OK):
        raise CommandUnusableError(f"spec.command: {path} cannot be read by this user")


def _missing(name: str, folder: Path, env: Mapping[str, str]) -> CommandUnusableError:
    path = folder / name
    if os.sep not in name:
        return CommandUnusableError(f"spec.command: no program {name!r} in PATH ({search_path(env)})")
    if path.is_dir():
        return CommandUnusableError(f"spec.command: {path} is a folder, expected a program")
    if path.exists():
        return CommandUnusableError(f"spec.command: {path} is not executable (chmod +x)")
    return CommandUnusableError(f"spec.command: expected the program {path}, found no such file")
