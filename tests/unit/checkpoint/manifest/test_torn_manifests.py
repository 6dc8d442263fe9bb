"""What becomes of an attempt whose root manifest nobody can read.

Without it what a torn manifest leaves would lie there for ever, or retention take what a newer trainctl could read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.kept.pins import pin
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.completing import VALUES, completed
from unit.checkpoint.ranks import at_step, attempt, save

JOB = "job-a"


def manifest(ref: CheckpointRef) -> Path:
    return Path(ref.uri) / ROOT_MANIFEST


def tear(ref: CheckpointRef) -> str:
    manifest(ref).write_bytes(manifest(ref).read_bytes()[:-40])
    return folder(ref)


def folder(ref: CheckpointRef) -> str:
    return "/".join(ref.uri.split("/")[-2:])


def three(uri: Path) -> list[CheckpointRef]:
    """Those of steps 1, 2 and 3."""
    refs: list[CheckpointRef] = []
    for step in (1, 2, 3):
        refs.append(completed(uri, step, parent=refs[-1] if refs else None))
    return refs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize(
    "torn",
    [
        lambda data: data[:-40],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data.replace(b'"epoch":1', b'"epoch":2'),
    ],
    ids=["cut", "empty", "zeros", "changed"],
)
@pytest.mark.parametrize("current", [True, False])
def test_an_older_attempt_with_a_torn_manifest_goes(
    tmp_path: Path, torn: Callable[[bytes], bytes], current: bool
) -> None:
    first, _, last = three(tmp_path)
    manifest(first).write_bytes(torn(manifest(first).read_bytes()))
    name = last.attempt if current else ""
    assert retain(str(tmp_path), job=JOB, keep=3, current=name) == (), "the file may be put back: one is missing"
    assert retain(str(tmp_path), job=JOB, keep=2, current=name) == (folder(first),)
    found = survey(str(tmp_path))
    assert (len(found.checkpoints), found.unusable, found.interrupted) == (2, (), ())
    assert not Path(first.uri).parent.exists()


@pytest.mark.parametrize(
    "written",
    [
        lambda data: b'{"format": "of somebody else"}',
        lambda data: json.dumps({**json.loads(data), "tcf": 99}).encode(),
        lambda data: json.dumps([1, 2]).encode(),
    ],
    ids=["foreign", "newer", "list"],
)
def test_what_another_program_or_version_may_read_stays(tmp_path: Path, written: Callable[[bytes], bytes]) -> None:
    first, _, _ = three(tmp_path)
    manifest(first).write_bytes(written(manifest(first).read_bytes()))
    assert retain(str(tmp_path), job=JOB, keep=1) != ()
    assert manifest(first).exists()
    assert len(survey(str(tmp_path)).unusable) == 1


def test_the_manifest_of_another_save_stays(tmp_path: Path) -> None:
    first, second, _ = three(tmp_path)
    manifest(first).write_bytes(manifest(second).read_bytes())
    retain(str(tmp_path), job=JOB, keep=1)
    assert manifest(first).exists()


def test_what_is_newer_or_protected_or_pinned_stays(tmp_path: Path) -> None:
    refs = three(tmp_path)
    newer, pinned = completed(tmp_path, 9, lineage=1), completed(tmp_path, 2, nonce="pinned")
    pin(pinned)
    for ref in (refs[0], newer, pinned):
        tear(ref)
    assert retain(str(tmp_path), job=JOB, keep=2, protect={refs[0].attempt}) == ()
    manifest(pinned).unlink()
    assert retain(str(tmp_path), job=JOB, keep=2) == (folder(refs[0]),), "nor is what is pinned an interrupted save"
    assert {step for step, _ in survey(str(tmp_path)).unreadable} == {9}


def test_who_acts_late_removes_nothing_of_a_later_lineage(tmp_path: Path) -> None:
    refs = three(tmp_path)
    later = completed(tmp_path, 1, lineage=2)
    tear(later)
    assert retain(str(tmp_path), job=JOB, keep=3, current=refs[-1].attempt) == ()
    assert retain(str(tmp_path), job=JOB, keep=3) == (folder(later),)


def test_the_only_one_that_is_whole_stays_and_so_does_all_where_none_is(tmp_path: Path) -> None:
    refs = three(tmp_path)
    for ref in refs[:2]:
        tear(ref)
    assert retain(str(tmp_path), job=JOB, keep=1) == (folder(refs[0]), folder(refs[1]))
    tear(refs[2])
    assert retain(str(tmp_path), job=JOB, keep=1) == ()


def test_nothing_torn_goes_where_it_may_be_another_jobs(tmp_path: Path) -> None:
    refs = three(tmp_path)
    tear(refs[0])
    save(tmp_path, at_step(VALUES, 9), of=attempt(9, job="job-b"))
    assert retain(str(tmp_path), job="job-b", keep=1) == ()
    assert manifest(refs[0]).exists()


def test_one_that_was_only_read_wrong_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = three(tmp_path)
    plainly, wrong = LocalStorage.read, [folder(first)]

    def read(self: LocalStorage, path: str, *, whole: Callable[[bytes], bool] | None = None) -> bytes:
        data = plainly(self, path, whole=whole)
        return data[:-1] if wrong and path.startswith(wrong[0]) and wrong.pop() else data

    monkeypatch.setattr(LocalStorage, "read", read)
    assert retain(str(tmp_path), job=JOB, keep=2) == ()
    assert wrong == []
    assert len(survey(str(tmp_path)).checkpoints) == 3
