"""Without it workers could begin with different weights, and a script nobody may read be retried for ever."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from trainctl.core.records.spec import JobSpec, LaunchSpec
from trainctl.parallel.command.program import program_of
from trainctl.parallel.plan.command_errors import CommandUnusableError
from trainctl.parallel.session.program import ProgramError, run_program

DRAWS = """
import sys, torch
with open(sys.argv[1], "a") as file:
    print(torch.nn.Linear(3, 2).weight.tolist(), file=file)
"""


def test_every_worker_draws_the_same_initial_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    script, drawn = tmp_path / "draws.py", tmp_path / "drawn"
    script.write_text(DRAWS)
    for _ in range(2):
        torch.default_generator.seed()
        run_program(["python", str(script), str(drawn)], "")
    first, second = drawn.read_text().splitlines()
    assert first == second


def refuse(path: object, *_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_script_that_may_not_be_read_fails_the_job_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr("io.open_code", refuse)
    script = tmp_path / "mine.py"
    script.touch()
    with pytest.raises(ProgramError, match=r"mine\.py cannot be read by the worker's user"):
        run_program(["python", str(script)], "")


@pytest.mark.parametrize("workdir", ["", "/closed/work"])
def test_a_command_behind_a_closed_folder_is_named(
    workdir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    spec = JobSpec(command=("/closed/mine.py",), launch=LaunchSpec(workdir=workdir))
    with pytest.raises(CommandUnusableError, match=r"/closed/\S+ cannot be read by this user"):
        program_of(spec, own_folder=tmp_path / "own", env={})
