"""A controller that refuses to start, or ends later: whoever asks afterwards is told why, and what to do about it.

Without it people would find a dead controller and no reason.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from trainctl.cli.doctor import gather_processes
from trainctl.cli.doctor.facts import Torch
from trainctl.cli.main import main as command
from trainctl.controller.run_dir import RunDir
from trainctl.core.errors import PreconditionError
from trainctl.core.system.processes import identify
from unit.controller.controller_harness import run, serving

WHY = "the state store is older than it was left"


def cli(home: Path, *arguments: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    code = command(arguments, out=out, err=err, env={"TRAINCTL_HOME": str(home), "TRAINCTL_CONFIG": ""})
    return code, out.getvalue() + err.getvalue()


def refuse(folder: Path) -> subprocess.CompletedProcess[str]:
    """Starts a controller as a process, which ends."""
    program = [sys.executable, "-m", "trainctl.controller", "--dir", str(folder)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def life(folder: Path, *, accept: bool = False) -> None:
    """One controller's, from its start to its end; it was a process that is gone."""

    async def main() -> None:
        async with serving(folder, accept_store=accept):
            pass

    run(main)
    file = RunDir(folder).controller_file
    file.write_text(json.dumps({**json.loads(file.read_text()), "start_ticks": 1}))


def test_a_store_that_went_back_is_the_reason_that_everybody_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, backup = tmp_path / "local", tmp_path / "backup"
    life(folder)
    shutil.copy(folder / "store.sqlite3", backup)
    life(folder)
    shutil.copy(backup, folder / "store.sqlite3")
    _, said = cli(tmp_path, "get", "jobs")
    assert WHY not in said  # it has not tried yet
    assert refuse(folder).returncode == 6

    former = RunDir(folder).former()
    assert former is not None
    named = ("--address", former.address, "--token-file", str(folder / "token"))
    for arguments in (("get", "jobs"), ("local", "status"), ("get", "jobs", *named)):
        code, said = cli(tmp_path, *arguments)
        assert code == 7
        assert WHY in said
        assert "(STORE_WENT_BACK)" in said
        assert "--accept-store" in said
        assert "trainctl local up" in said

    _, said = cli(tmp_path, "local", "status", "-o", "jsonpath=.controller.ended.code")
    assert said.startswith("STORE_WENT_BACK\n")

    monkeypatch.setattr(gather_processes, "torch", lambda env: Torch())
    code, said = cli(tmp_path, "doctor", "-o", "json")
    found = {check["check"]: check for check in json.loads(said[said.index("{") : said.rindex("}") + 1])["checks"]}
    assert found["controller"]["status"] == found["store"]["status"] == "fail"
    assert WHY in found["controller"]["message"]
    assert "STORE_WENT_BACK" in found["store"]["message"]
    assert "--accept-store" in found["store"]["remedy"]

    life(folder, accept=True)
    _, said = cli(tmp_path, "get", "jobs")
    assert WHY not in said  # that is over


def test_a_first_start_that_fails_is_told_too(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "store.sqlite3").write_bytes(b"no store at all" * 1000)
    refused = refuse(folder)
    code, said = cli(tmp_path, "get", "jobs")
    assert (refused.returncode, code) == (6, 7)
    assert f"none runs in {folder}; the newest one ended by itself at 20" in said
    assert "found a file that SQLite cannot use" in said
    assert "move the file away to start empty" in said


def test_one_that_is_told_to_use_the_folder_of_another_one_leaves_no_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path):
            other = RunDir(tmp_path)
            other.end_file.write_text("{}")
            assert other.end() is None  # no reason to fail: it only explains

    run(main)
    folder = tmp_path / "folder"
    folder.mkdir()
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        process = identify(sleeper.pid)
        assert process is not None
        RunDir(folder).controller_file.write_text(json.dumps({**asdict(process), "address": "127.0.0.1:9"}))
        assert refuse(folder).returncode == 4
        assert RunDir(folder).end() is None
    finally:
        sleeper.communicate()


def test_a_bug_leaves_its_kind_and_the_way_to_the_traceback(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write_end(ZeroDivisionError("oh"), 7.0)
    end = run_dir.end()
    assert end is not None
    assert (end.at_s, end.code, end.message) == (7.0, "INTERNAL", "ZeroDivisionError: oh")
    assert "traceback" in end.hint
    run_dir.write_end(PreconditionError("no", hint="do"), 8.0)
    end = run_dir.end()
    assert end is not None
    assert (end.code, end.message, end.hint) == ("FAILED_PRECONDITION", "no", "do")
