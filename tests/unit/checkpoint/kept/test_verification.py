"""Verifying a checkpoint without loading it: every byte counts, every damaged file is named, torch is not needed.

Without it somebody could be told that a damaged checkpoint is good.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.kept.verification import verify
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import save


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    return save(tmp_path_factory.mktemp("checkpoints"), artifacts={"config.json": b"{}"}, max_file_bytes=1 << 10)


def stored(ref: CheckpointRef) -> list[Path]:
    return sorted(path for path in Path(ref.uri).rglob("*") if path.is_file() and path.name != "manifest.json")


def test_a_whole_one_has_no_damage(ref: CheckpointRef) -> None:
    found = verify(ref)
    assert found.damage == ()
    assert found.files == len(stored(ref)) + 1
    assert found.size_bytes == sum(path.stat().st_size for path in stored(ref))


def test_progress_goes_up_to_all_that_there_is_also_where_files_are_damaged(tmp_path: Path) -> None:
    ref = save(tmp_path, artifacts={"config.json": b"{}"}, max_file_bytes=1 << 10)
    seen: list[tuple[int, int]] = []
    for damaged in (False, True):
        if damaged:
            for path in stored(ref)[::2]:
                path.unlink()
        seen.clear()
        found = verify(ref, progress=lambda done, total: seen.append((done, total)))
        assert bool(found.damage) == damaged
        assert seen == sorted(seen)
        assert seen[-1] == (found.size_bytes, found.size_bytes)


def test_who_is_not_to_be_in_the_way_reads_on_one_thread_and_rests(tmp_path: Path) -> None:
    ref = save(tmp_path, artifacts={"config.json": b"{}"}, max_file_bytes=1 << 10)
    rests: list[int] = []
    found = verify(ref, pause=lambda: rests.append(threading.get_ident()))
    assert found == verify(ref)
    assert len(rests) >= 2
    assert set(rests) == {threading.get_ident()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found_and_its_file_named(ref: CheckpointRef, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(stored(ref)))
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        (damage,) = verify(ref).damage
        assert str(path) in damage
        assert "is corrupt" in damage
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("hurt", "word"), [(Path.unlink, "is missing"), (lambda path: path.write_bytes(b""), "is truncated")]
)
def test_all_damaged_files_are_named_at_once(tmp_path: Path, hurt: Callable[[Path], object], word: str) -> None:
    ref = save(tmp_path, artifacts={"config.json": b"{}"})
    paths = stored(ref)
    for path in paths:
        hurt(path)
    damage = verify(ref).damage
    assert sorted(line.split()[0] for line in damage) == [str(path) for path in paths]
    assert all(word in line for line in damage)


def test_another_manifest_than_the_committed_one_is_an_error(tmp_path: Path) -> None:
    ref = save(tmp_path)
    (Path(ref.uri) / "manifest.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="expected the manifest with sha256"):
        verify(ref)


def test_it_does_without_torch() -> None:
    modules = "trainctl.checkpoint.kept.verification, trainctl.checkpoint.kept.pins"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
