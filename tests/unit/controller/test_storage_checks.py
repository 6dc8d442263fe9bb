"""What is said of a storage somewhere else before a job is taken in, and which checkpoint a job begins with.

Without it a job could train for hours before its first save fails.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from object_store.store import Store
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.controller.domain.spec import effective, job_from_wire
from trainctl.controller.jobs.checks import check_outside, find_resume
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, SpecError
from trainctl.core.records.spec import TrainJob
from unit.checkpoint.ranks import at_step, attempt, full_values, save

pytest_plugins = ["object_store.fixtures"]


def job(**checkpoint: Any) -> TrainJob:
    env = checkpoint.pop("env", {})
    wire = {"metadata": {"name": "a"}, "spec": {"checkpoint": checkpoint, "env": env}}
    return effective(job_from_wire(wire))


def refused(**checkpoint: Any) -> str:
    with pytest.raises(SpecError) as caught:
        check_outside(job(**checkpoint))
    (problem,) = caught.value.problems
    return f"{problem.path}: {problem.message}"


def test_a_bucket_that_can_be_written_is_taken(store: Store) -> None:
    assert check_outside(job(uri=store.uri)) is None
    assert not store.objects()


def test_a_bucket_that_is_missing_is_refused_by_field_with_what_to_do(store: Store) -> None:
    said = refused(uri=f"s3://{store.bucket}-typo/runs")
    assert said.startswith(f"spec.checkpoint.uri: listing s3://{store.bucket}-typo/runs failed: ")
    assert "make the bucket, or correct the URI" in said


def test_a_bucket_that_can_only_be_read_is_refused(store: Store) -> None:
    store.proxy.when("PUT").always().deny()
    assert "writing to" in refused(uri=store.uri)


def test_what_only_the_workers_can_reach_is_left_to_them(store: Store) -> None:
    store.proxy.when("GET").always().deny()
    before = len(store.proxy.requests)
    assert check_outside(job(uri=store.uri, env={"AWS_ACCESS_KEY_ID": "theirs"})) is None
    assert len(store.proxy.requests) == before


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(vars(sys.modules["fsspec.registry"])["_registry"], "s3", raising=False)
    said = refused(uri="s3://bucket/runs")
    assert "spec.checkpoint.uri: s3://bucket/runs" in said
    assert "s3fs" in said


def test_a_misspelt_uri_is_not_taken_for_a_path() -> None:
    with pytest.raises(SpecError, match="expected a path, or a URL such as s3://bucket/runs"):
        job(uri="s3//bucket/runs")


def chain(folder: Path, *steps: int) -> list[Any]:
    refs: list[Any] = []
    for step in steps:
        values = at_step(full_values({"w": (6,)}), step)
        refs.append(save(folder, values, of=attempt(step), parent=refs[-1] if refs else None))
    return refs


def test_the_newest_comes_with_what_it_descends_from(tmp_path: Path) -> None:
    first, second, third = chain(tmp_path, 1, 2, 3)
    for wanted in ("latest", str(tmp_path)):
        found = find_resume(job(uri=str(tmp_path), resumeFrom=wanted))
        assert found is not None
        assert (found.ref, found.older, found.passed_over) == (third, (second, first), ())
    named = find_resume(job(resumeFrom=third.uri))
    assert named is not None
    assert (named.ref, named.older) == (third, ())


def test_newer_ones_that_are_damaged_are_said(tmp_path: Path) -> None:
    first, second, third = chain(tmp_path, 1, 2, 3)
    mark_damaged(second, DamagedCheckpointError("param of w"))
    next((Path(third.uri) / "data").iterdir()).unlink()
    found = find_resume(job(uri=str(tmp_path), resumeFrom="latest"))
    assert found is not None
    assert found.ref == first
    assert len(found.passed_over) == 2
    assert "is missing" in found.passed_over[0]
    assert f"{second.uri} was found damaged: param of w" in found.passed_over[1]


def test_one_that_was_found_damaged_is_not_begun_with_although_it_is_named(tmp_path: Path) -> None:
    first, second = chain(tmp_path, 1, 2)
    mark_damaged(second, DamagedCheckpointError("param of w"))
    with pytest.raises(DamagedCheckpointError, match="was found damaged: param of w") as caught:
        find_resume(job(resumeFrom=second.uri))
    assert f"trainctl checkpoints verify {second.uri}" in caught.value.hint
    named = find_resume(job(resumeFrom=first.uri))
    assert named is not None
    assert named.ref == first


def test_where_all_are_damaged_all_are_named(tmp_path: Path) -> None:
    for ref in chain(tmp_path, 1, 2):
        shutil.rmtree(Path(ref.uri) / "data")
    with pytest.raises(CheckpointError, match=r"(?s)holds no complete checkpoint.*step 2 .*step 1 "):
        find_resume(job(resumeFrom=str(tmp_path)))
    with pytest.raises(DamagedCheckpointError, match=r"(?s)every one is damaged.*step 2 .*step 1 ") as caught:
        find_resume(job(uri=str(tmp_path), resumeFrom="latest"))
    assert "resumeFrom: none" in caught.value.hint
    assert find_resume(job(uri=str(tmp_path / "empty"), resumeFrom="latest")) is None
