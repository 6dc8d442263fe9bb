"""What lies in a folder that somebody names, found without a controller.

Without it one folder could mean one checkpoint to one command and another to the next.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from trainctl.checkpoint.export import export_checkpoint
from trainctl.checkpoint.kept.catalog import newest, resolve
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.kept.lookup import choose, look, only, passed_over
from trainctl.checkpoint.kept.pins import pin
from trainctl.checkpoint.library import load_state
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.names import step_folder
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, NotFoundError, StorageRefusedError
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, save


def saved(uri: Path | str, step: int, *, job: str = "job-a", nonce: str = "n") -> CheckpointRef:
    return save(uri, at_step(full_values(), step), of=attempt(step, job=job, nonce=nonce))


def test_many_of_a_step_and_one_are_found_whatever_folder_is_named(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 10), saved(tmp_path, 20)
    pin(first)
    found = look(str(tmp_path))
    assert [info.ref for info in found.infos] == [first, second]
    assert (found.pinned, found.single, found.uri) == (frozenset({first.uri}), False, str(tmp_path))
    for uri in (first.uri, str(Path(first.uri).parent), f"file://{first.uri}", f"{first.uri}/"):
        one = look(uri)
        assert ([info.ref for info in one.infos], one.single) == ([first], True), uri
        assert choose(one, None).ref == only(one, None).ref == first
    assert choose(found, None).ref == second
    assert choose(found, 10).ref == only(found, 10).ref == first


def test_a_folder_means_the_same_whoever_looks_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that resumes from it, and a person who lists it; also where it is the one that one stands in."""
    first = saved(tmp_path, 10)
    saved(tmp_path, 20)
    for folder in (Path(first.uri), Path(first.uri).parent):
        monkeypatch.chdir(folder)
        for uri in (str(folder), f"{folder}/", "."):
            assert resolve(uri) == choose(look(uri), None).ref == first, uri


def test_a_copy_of_an_attempt_under_another_name_is_one(tmp_path: Path) -> None:
    ref = saved(tmp_path / "c", 10)
    shutil.copytree(ref.uri, tmp_path / "copy")
    found = look(str(tmp_path / "copy"))
    assert (found.single, choose(found, None).ref.uri, choose(found, 10).ref.attempt) == (
        True,
        str(tmp_path / "copy"),
        ref.attempt,
    )


def test_an_object_store_is_looked_at_alike() -> None:
    uri = f"memory://{uuid.uuid4()}"
    first, second = saved(uri, 10), saved(uri, 20)
    mark_damaged(second, DamagedCheckpointError("a flip"))
    found = look(uri)
    assert [info.ref for info in found.survey.checkpoints] == [first]
    assert [(info.ref, info.mark) for info in found.survey.damaged] == [(second, "a flip")]
    assert look(f"memory://{uuid.uuid4()}").infos == ()


def test_what_is_damaged_is_taken_only_where_it_is_named(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 10), saved(tmp_path, 20)
    mark_damaged(second, DamagedCheckpointError("a flip"))
    found = look(str(tmp_path))
    assert choose(found, None).ref == first
    assert choose(found, 20).ref == second
    assert choose(look(second.uri), None).mark == "a flip"
    mark_damaged(first, DamagedCheckpointError("another flip"))
    with pytest.raises(CheckpointError, match="holds no checkpoint that is whole") as refused:
        choose(look(str(tmp_path)), None)
    assert all(part in str(refused.value) for part in (first.uri, second.uri, "a flip", "another flip"))
    assert refused.value.hint


def test_newer_ones_that_were_not_taken_are_said(tmp_path: Path) -> None:
    (tmp_path / "step-000000000005").mkdir()
    first, second, third = saved(tmp_path, 10), saved(tmp_path, 20), saved(tmp_path, 30)
    mark_damaged(second, DamagedCheckpointError("a flip"))
    (Path(third.uri) / "manifest.json").write_bytes(b"")
    found = look(str(tmp_path))
    assert choose(found, None).ref == first
    (at, problem), (torn_at, torn) = passed_over(found, choose(found, None))
    assert (at, torn_at, "a flip" in problem, "is torn" in torn) == (20, 30, True, True)
    assert passed_over(found, choose(found, 20)) == ((30, torn),)


def test_a_mark_tells_a_terminal_nothing(tmp_path: Path) -> None:
    ref = saved(tmp_path, 10)
    (Path(ref.uri) / "damaged").write_bytes(b"a \x1b]0;flip\x07\nand \xff\x00more\n")
    assert choose(look(ref.uri), None).mark == "a \ufffd]0;flip\ufffd\nand \ufffd\ufffdmore"


def test_a_missing_file_is_damage_without_a_mark(tmp_path: Path) -> None:
    ref = saved(tmp_path, 10)
    next((Path(ref.uri) / "data").iterdir()).unlink()
    info = choose(look(ref.uri), None)
    assert (info.mark, "is missing" in info.problem) == ("", True)


def test_what_is_not_there_is_said_with_what_there_is(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    saved(tmp_path, 20)
    with pytest.raises(NotFoundError, match="holds no checkpoint of step 30; it has 10, 20"):
        choose(look(str(tmp_path)), 30)
    with pytest.raises(NotFoundError, match="holds no checkpoint"):
        only(look(str(tmp_path / "none")), None)


def test_a_torn_manifest_and_an_interrupted_save_are_no_checkpoints(tmp_path: Path) -> None:
    torn, other = saved(tmp_path, 10), saved(tmp_path, 20)
    manifest = Path(torn.uri) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    (Path(other.uri) / "manifest.json").unlink()
    for uri in (str(tmp_path), torn.uri):
        survey = look(uri).survey
        assert [step for step, _ in survey.unreadable] == [10], uri
    assert look(other.uri).survey.interrupted == ((20, other.attempt),)
    with pytest.raises(CheckpointError, match="it is being written, or was interrupted"):
        choose(look(other.uri), None)
    with pytest.raises(CheckpointError, match=r"manifest\.json is torn"):
        only(look(str(tmp_path)), 10)


def test_which_one_is_changed_is_not_guessed(tmp_path: Path) -> None:
    one, two = saved(tmp_path, 10, nonce="one"), saved(tmp_path, 10, nonce="two")
    found = look(str(tmp_path))
    with pytest.raises(CheckpointError, match="ambiguous") as refused:
        only(found, 10)
    assert one.uri in str(refused.value)
    assert two.uri in str(refused.value)
    assert only(look(one.uri), None).ref == one
    assert choose(found, 10).ref in (one, two), "of one job, who reads takes the newest"


def test_checkpoints_of_several_jobs_are_told_apart(tmp_path: Path) -> None:
    saved(tmp_path, 10, job="a")
    saved(tmp_path, 10, job="b")
    found = look(str(tmp_path))
    for step in (None, 10):
        with pytest.raises(CheckpointError, match="ambiguous"):
            choose(found, step)
    assert found.infos[0].ref.uri != found.infos[1].ref.uri
    with pytest.raises(CheckpointError, match=r"(?s)by several jobs:\n  job b, step 10: .*\n  job a, step 10: "):
        resolve(str(tmp_path / step_folder(10)))


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "model.safetensors", "model.safetensors.index.json"])
def test_a_folder_of_another_format_says_how_to_import_it_whoever_reads_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / name).write_bytes(b"x")
    readers: tuple[Callable[[str], object], ...] = (
        look,
        newest,
        resolve,
        lambda uri: load_state(uri, LocalState(())),
        lambda uri: export_checkpoint(uri, str(tmp_path / "exported")),
    )
    for read in readers:
        with pytest.raises(CheckpointError, match=f"is of another format: .* found {re.escape(name)}") as refused:
            read(str(folder))
        assert refused.value.hint == f"make a checkpoint of it: trainctl checkpoints import {folder} TARGET"


def test_a_folder_inside_of_a_checkpoint_is_nothing_to_import(tmp_path: Path) -> None:
    ref = saved(tmp_path, 10)
    with pytest.raises(CheckpointError, match="is inside of a checkpoint") as refused:
        look(f"{ref.uri}/data")
    assert refused.value.hint == f"name the checkpoint itself: {ref.uri}"


def test_a_foreign_folder_and_one_that_refuses_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(CheckpointError, match="is foreign"):
        look(str(tmp_path))

    def refuse(storage: LocalStorage, path: str) -> tuple[str, ...]:
        raise PermissionError(errno.EACCES, "Permission denied", storage.uri)

    monkeypatch.setattr(LocalStorage, "list", refuse)
    with pytest.raises(StorageRefusedError, match="Permission denied"):
        look(str(tmp_path))


def test_it_does_without_torch() -> None:
    code = "import sys, trainctl.checkpoint.kept.lookup; sys.exit('torch' in sys.modules or 'fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
