"""Checkpoints of a folder: listed, described, verified, kept and removed from its files, with no controller.

Without it a folder of checkpoints could be tended only while a controller runs, or lose the wrong one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.kept.catalog import newest
from trainctl.checkpoint.manifest.names import DAMAGED, PIN
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, save
from unit.cli.answering import answer
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController
from unit.cli.hf_folder import hf_folder

Pair = tuple[CheckpointRef, CheckpointRef]


@pytest.fixture(autouse=True)
def nobody(controller: FakeController) -> None:
    """Whoever asks a controller fails."""
    controller.stop()


@pytest.fixture
def saved(tmp_path: Path) -> Pair:
    return two(tmp_path / "ck")


def two(uri: Path | str, job: str = "job-a") -> Pair:
    first = save(uri, at_step(full_values(), 10), of=attempt(10, job=job), artifacts={"config.json": b"{}"})
    return first, save(uri, at_step(full_values(), 20), of=attempt(20, job=job), parent=first)


def hurt(ref: CheckpointRef) -> tuple[Path, bytes]:
    """Changes a bit; returns the file, and what was in it."""
    path = next((Path(ref.uri) / "data").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return path, whole


def test_a_folder_is_listed_as_a_job_is(cli: Cli, saved: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = saved
    monkeypatch.chdir(tmp_path)
    for place in ("./ck", str(tmp_path / "ck"), f"file://{tmp_path}/ck"):
        listed = cli("checkpoints", "list", place)
        assert listed.code == 0, listed.err
        header, *rows = [line.split() for line in listed.out.splitlines()]
        assert header == ["STEP", "LINEAGE", "AGE", "PINNED", "STATE", "ATTEMPT", "URI"]
        assert [(row[0], row[4], row[6]) for row in rows] == [
            ("10", "committed", first.uri),
            ("20", "committed", second.uri),
        ]
    data = json.loads(cli("get", "checkpoints", "./ck", "-o", "json").out)
    assert [(one["step"], one["state"], one["job"]) for one in data["checkpoints"]] == [
        (10, "committed", "job-a"),
        (20, "committed", "job-a"),
    ]
    assert data["checkpoints"][0]["committed"].startswith("20")
    assert (data["refused"], data["pinned"], data["unreadable"], data["interrupted"]) == ([], [], [], [])
    assert cli("checkpoints", "list", "./ck", "-o", "name").out.split() == [first.uri, second.uri]
    assert cli("checkpoints", "list", second.uri, "-o", "name").out.split() == [second.uri]
    assert cli("get", "checkpoints", "./ck", "-w").code == 2


def test_an_object_store_is_read_alike(cli: Cli) -> None:
    uri = f"memory://{uuid.uuid4()}"
    _, second = two(uri)
    assert cli("checkpoints", "list", uri, "-o", "name").out.split()[-1] == second.uri
    assert cli("checkpoints", "verify", uri).code == 0
    assert cli("checkpoints", "pin", uri, "--step", "20").code == 0
    assert json.loads(cli("checkpoints", "describe", uri, "-o", "json").out)["pinned"] is True
    assert cli("checkpoints", "rm", uri, "--step", "10", "-y").code == 0
    assert cli("checkpoints", "list", uri, "-o", "name").out.split() == [second.uri]
    nothing = cli("checkpoints", "list", f"{uri}-typo")
    assert (nothing.code, "there is nothing at" in nothing.err) == (3, True)


def test_what_is_no_checkpoint_yet_or_any_more_is_said(cli: Cli, saved: Pair) -> None:
    first, second = saved
    manifest = Path(first.uri) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    (Path(second.uri) / "manifest.json").unlink()
    listed = cli("checkpoints", "list", str(Path(first.uri).parents[1]))
    assert listed.code == 0
    assert "warning: step 10 cannot be used: " in listed.err
    assert f"step 20, attempt {second.attempt}: it is being written, or was interrupted" in listed.err
    data = json.loads(cli("checkpoints", "list", str(Path(first.uri).parents[1]), "-o", "json").out)
    assert (data["unreadable"][0]["step"], data["interrupted"]) == (10, [{"step": 20, "attempt": second.attempt}])


def test_a_folder_is_described(cli: Cli, saved: Pair) -> None:
    first, second = saved
    root = str(Path(first.uri).parents[1])
    data = json.loads(cli("checkpoints", "describe", root, "-o", "json").out)
    assert (data["step"], data["job"], data["uri"]) == (20, "job-a", second.uri)
    assert data["parent"] == {"job": "job-a", "step": 10, "attempt": first.attempt}
    assert (data["rollbackTarget"], data["loads"], data["pinned"]) == (None, [], False)
    text = cli("checkpoints", "describe", root, "--step", "10").out
    for words in ("Job        job-a", "10 in lineage 1", first.uri, "config.json"):
        assert words in text
    assert "Roll-back" not in text
    assert cli("checkpoints", "describe", root, "--step", "11").code == 3
    assert "10 in lineage 1" in cli("checkpoints", "describe", first.uri).out


def test_damage_is_marked_shown_and_taken_back_when_it_is_repaired(cli: Cli, saved: Pair) -> None:
    first, second = saved
    root = str(Path(first.uri).parents[1])
    whole = cli("checkpoints", "verify", root)
    assert (whole.code, "the checkpoint of step 20 is whole: " in whole.out) == (0, True)
    path, before = hurt(second)
    found = cli("checkpoints", "verify", root)
    assert (found.code, found.out) == (6, "")
    assert f"{path} is corrupt" in found.err
    assert "it is marked as damaged" in found.err
    kept = newest(root)
    assert kept is not None
    assert kept.step == 10, "what begins with the newest passes it over"
    for command in ("verify", "describe"):
        passed = cli("checkpoints", command, root)
        assert passed.code == 0
        assert "warning: step 20 is newer, and passed over: step-000000000020/" in passed.err
        assert "is newer" not in cli("checkpoints", command, root, "--step", "10").err
    listed = cli("checkpoints", "list", root)
    assert [line.split()[4] for line in listed.out.splitlines()[1:3]] == ["committed", "refused"]
    assert "step 20 is refused: " in listed.out
    assert f"{path.name} is corrupt" in listed.out
    data = json.loads(cli("checkpoints", "list", root, "-o", "json").out)
    assert [(one["step"], one["state"], one["refusedSince"]) for one in data["refused"]] == [(20, "refused", None)]
    text = cli("checkpoints", "describe", root, "--step", "20").out
    assert "Refused    damaged: " in text
    assert f"trainctl checkpoints verify {root} --step 20\n" in text
    pinned = cli("checkpoints", "pin", root, "--step", "20")
    assert (pinned.code, "is damaged, so that it is not worth keeping" in pinned.err) == (6, True)
    again = json.loads(cli("checkpoints", "verify", root, "--step", "20", "-o", "json").out)
    assert (again["marked"], str(path) in again["refused"], len(again["damage"])) == (True, True, 1)
    path.write_bytes(before)
    repaired = cli("checkpoints", "verify", root, "--step", "20")
    assert repaired.code == 0
    assert "it was marked as damaged, and is no longer: " in repaired.out
    assert not (Path(second.uri) / DAMAGED).exists()
    kept = newest(root)
    assert kept is not None
    assert kept.step == 20
    assert json.loads(cli("checkpoints", "verify", root, "-o", "json").out)["unmarked"] is False


def test_a_storage_that_cannot_be_written_is_said_and_hides_nothing(
    cli: Cli, saved: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = hurt(saved[1])

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(LocalStorage, "create_file", refuse)
        found = cli("checkpoints", "verify", saved[1].uri)
        assert found.code == 6
        assert f"{path} is corrupt" in found.err
        assert "it could not be marked" in found.err
        assert os.strerror(errno.EROFS) in found.err
        data = json.loads(cli("checkpoints", "verify", saved[1].uri, "-o", "json").out)
        assert (data["marked"], "could not be marked" in data["notMarked"]) == (False, True)
    cli("checkpoints", "verify", saved[1].uri)
    path.write_bytes(before)
    monkeypatch.setattr(LocalStorage, "delete", refuse)
    repaired = cli("checkpoints", "verify", saved[1].uri)
    assert repaired.code == 0
    assert "the mark could not be taken away" in repaired.out
    assert (Path(saved[1].uri) / DAMAGED).exists()


def test_what_only_a_newer_version_can_tell_is_not_marked(
    cli: Cli, saved: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainctl.checkpoint.manifest.checksum.ALGORITHM", "blake9")
    found = cli("checkpoints", "verify", saved[1].uri)
    assert found.code == 6
    assert "expected checksums of kind blake9, found 'crc32'" in found.err
    assert "may be right for a newer one" in found.err
    assert not (Path(saved[1].uri) / DAMAGED).exists()


def test_a_pin_keeps_and_rm_removes_one(cli: Cli, saved: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = saved
    root = str(Path(first.uri).parents[1])
    pinned = json.loads(cli("checkpoints", "pin", root, "--step", "10", "-o", "json").out)
    assert pinned == {"job": "job-a", "step": 10, "uri": first.uri, "pinned": True}
    assert (Path(first.uri) / PIN).exists()
    assert [line.split()[3] for line in cli("checkpoints", "list", root).out.splitlines()] == ["PINNED", "yes", "-"]
    refused = cli("checkpoints", "rm", root, "--step", "10", "-y")
    assert (refused.code, "is pinned" in refused.err, f"unpin {first.uri}" in refused.err) == (6, True, True)
    assert cli("checkpoints", "unpin", first.uri).code == 0
    assert not (Path(first.uri) / PIN).exists()
    heard = answer(monkeypatch, "n\n")
    assert cli("checkpoints", "rm", first.uri).code == 1
    assert f"({first.uri})? no controller is asked whether a job needs it [y/N]" in heard.getvalue()
    assert Path(first.uri).exists()
    assert cli("checkpoints", "rm", first.uri, "-y").code == 0
    assert not Path(first.uri).parent.exists()
    heard = answer(monkeypatch, "n\n")
    cli("checkpoints", "rm", root, "--step", "20")
    assert "it is the only whole one here" in heard.getvalue()
    assert Path(second.uri).exists()


@pytest.mark.parametrize("command", ["rm", "pin", "unpin"])
def test_which_of_many_is_never_guessed(cli: Cli, saved: Pair, command: str) -> None:
    root = str(Path(saved[0].uri).parents[1])
    yes = ["-y"] if command == "rm" else []
    missing = cli("checkpoints", command, root, *yes)
    assert (missing.code, "--step: expected which checkpoint" in missing.err) == (2, True)
    assert cli("checkpoints", command, root, "--step", "11", *yes).code == 3
    assert all(Path(ref.uri).exists() for ref in saved)


@pytest.mark.parametrize("command", ["list", "describe", "verify", "rm", "pin", "unpin"])
def test_bad_places_are_one_error_each(cli: Cli, tmp_path: Path, command: str) -> None:
    def said(place: str, code: int) -> str:
        step = ["--step", "10"] if command not in ("list",) else []
        done = cli("checkpoints", command, place, *step, *(["-y"] if command == "rm" else []))
        assert (done.code, done.out) == (code, ""), done
        assert "hint: " in done.err
        return done.err

    assert "there is no folder" in said(str(tmp_path / "nothing"), 3)
    file = tmp_path / "file"
    file.write_text("x")
    assert "expected a folder of checkpoints, found a file" in said(str(file), 2)
    assert "there is no folder" in said(f"{file}/below", 3)
    for name, hint in (
        ("file", "name the folder that it is in"),
        ("model.pt", "such a file can execute code and is not read; save its tensors with safetensors"),
        ("model.safetensors", f"trainctl checkpoints import {tmp_path} TARGET"),
    ):
        (tmp_path / name).write_text("x")
        assert hint in said(str(tmp_path / name), 2)
    assert "expected a path, or a URL such as s3://bucket/runs" in said("s3//bucket/runs", 2)
    assert "a URL such as s3://bucket" in said("s3:bucket", 2)
    assert "did you mean s3://?" in said("s4://bucket/runs", 6)
    other = hf_folder(tmp_path / "hf")
    assert f"trainctl checkpoints import {other} TARGET" in said(str(other), 6)
    (tmp_path / "photos" / "me.jpg").mkdir(parents=True)
    assert "is foreign: expected folders such as step-" in said(str(tmp_path / "photos"), 6)


def test_an_empty_folder_holds_none(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    listed = cli("checkpoints", "list", str(empty))
    assert (listed.code, listed.out, f"{empty} holds no checkpoint" in listed.err) == (0, "", True)
    assert json.loads(cli("checkpoints", "list", str(empty), "-o", "json").out)["checkpoints"] == []
    assert cli("checkpoints", "verify", str(empty)).code == 3
    assert list(empty.iterdir()) == []


def test_a_folder_without_the_right_to_read_is_said(cli: Cli, saved: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", saved[0].uri)

    with monkeypatch.context() as locked:
        locked.setattr("trainctl.cli.folders.places.os.stat", refuse)
        denied = cli("checkpoints", "list", saved[0].uri)
        assert (denied.code, "cannot be looked at: Permission denied" in denied.err) == (5, True)
    monkeypatch.setattr(LocalStorage, "size", refuse)
    denied = cli("checkpoints", "verify", saved[0].uri)
    assert (denied.code, "Permission denied" in denied.err) == (6, True)
    assert not (Path(saved[0].uri) / DAMAGED).exists()


def test_a_name_that_is_a_folder_gets_the_way_to_write_it(
    cli: Cli, controller: FakeController, saved: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [["list"], ["describe"], ["verify"]]
    commands += [["rm", "--step", "10", "-y"], ["pin", "--step", "10"], ["unpin", "--step", "10"]]
    for command, *options in commands:
        silent = cli("checkpoints", command, "ck", *options)
        assert silent.code == 7
        assert "for the folder of that name write ./ck" in silent.err
    controller.start()
    for command, *options in commands:
        unknown = cli("checkpoints", command, "ck", *options)
        assert (unknown.code, "hint: for the folder of that name write ./ck" in unknown.err) == (3, True), command
        assert "write ./" not in cli("checkpoints", command, "other", *options).err
    controller.add_job("ck")
    missing = cli("checkpoints", "verify", "ck", "--step", "11")
    assert (missing.code, "write ./ck" in missing.err) == (3, False), "of a job that is there nothing else is meant"


def test_a_copy_of_one_is_verified_where_it_lies_but_not_removed(cli: Cli, saved: Pair, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved[0].uri, copy)
    assert cli("checkpoints", "verify", str(copy)).code == 0
    kept = cli("checkpoints", "rm", str(copy), "-y")
    assert (kept.code, "remove it by hand" in kept.err, copy.exists()) == (6, True, True)


def test_checkpoints_of_several_jobs_are_listed_together(cli: Cli, tmp_path: Path) -> None:
    for job in ("b", "a"):
        two(tmp_path / "ck", job)
    listed = cli("checkpoints", "list", str(tmp_path / "ck"))
    assert len(listed.out.splitlines()) == 5
    assert "they are of several jobs: a, b" in listed.err
    described = cli("checkpoints", "describe", str(tmp_path / "ck"))
    assert (described.code, "ambiguous" in described.err) == (6, True)


def test_it_does_without_torch_and_loads_fsspec_only_for_a_store(saved: Pair) -> None:
    code = (
        "import io, sys; from trainctl.cli.main import main;"
        f"codes = [main(['checkpoints', c, {saved[0].uri!r}], out=io.StringIO(), err=io.StringIO(), env={{}})"
        " for c in ('list', 'describe', 'verify')];"
        "sys.exit(bool({'torch', 'fsspec', 'numpy'} & set(sys.modules)) or codes != [0, 0, 0])"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
