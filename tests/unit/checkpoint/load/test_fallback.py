"""A damaged checkpoint is refused, and the newest older one that it descends from is taken, said and remembered.

Without it a job could go back to damaged weights, or to those of another job.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.kept.catalog import newest, older, passed_over, survey
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.kept.pins import pin
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.library import load_state
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.names import DAMAGED, ROOT_MANIFEST
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import (
    CheckpointError,
    DamagedCheckpointError,
    StorageAwayError,
    StorageRefusedError,
    UnfitCheckpointError,
)
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, same_bits, save

SHAPES = {"w": (64, 32), "twin": (64, 32), "b": (5,)}
JOB = "job-a"


def save_step(folder: Path, step: int, parent: CheckpointRef | None = None, *, lineage: int = 1) -> CheckpointRef:
    values = at_step(full_values(SHAPES, seed=step), step)
    values = {k._replace(version=k.version._replace(lineage=lineage)): v for k, v in values.items()}
    return save(
        folder, values, of=attempt(step, lineage=lineage, nonce=f"{lineage}"), parent=parent, max_file_bytes=4096
    )


def chain(folder: Path, *steps: int) -> list[CheckpointRef]:
    refs: list[CheckpointRef] = []
    for step in steps:
        refs.append(save_step(folder, step, refs[-1] if refs else None))
    return refs


def blank() -> LocalState:
    values = full_values(SHAPES)
    return rank_state(values, plain(values, 1), "rank:0", blank=True)


def holds(state: LocalState, step: int) -> bool:
    values = {(k.fqn, k.kind): v for k, v in full_values(SHAPES, seed=step).items()}
    return all(same_bits(t.tensor, values[t.key.fqn, t.key.kind]) for t in state.tensors)


def data_of(ref: CheckpointRef) -> list[Path]:
    return sorted((Path(ref.uri) / "data").iterdir())


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def flip_body(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = data_of(ref)[0]
    flip(path, -1)
    return f"{path.name} is corrupt: bytes "


def flip_header(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = data_of(ref)[0]
    flip(path, 30)
    return f"{path.name} is corrupt: bytes 0:4096 (its header)"


def truncate(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = data_of(ref)[0]
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path.name} is truncated"


def swap(ref: CheckpointRef, before: CheckpointRef) -> str:
    sizes: dict[int, Path] = {}
    for path in data_of(ref):
        other = sizes.setdefault(path.stat().st_size, path)
        if other is not path:
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            return "is corrupt: bytes "
    raise AssertionError("two files of one size are needed")


def replay_data(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = data_of(ref)[0]
    shutil.copy(data_of(before)[0], path)
    return f"{path.name} is corrupt"


def replay_part(ref: CheckpointRef, before: CheckpointRef) -> str:
    for path in (*Path(before.uri).glob("parts/*0.json"), *Path(before.uri).glob("data/w00000*")):
        shutil.copy(path, Path(ref.uri) / path.relative_to(before.uri))
    return "parts/w00000.json"


def lose_data(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = data_of(ref)[-1]
    path.unlink()
    return f"{path.name} is missing"


def change_root(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = Path(ref.uri) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":9'))
    return "manifest.json"


def tear_root(ref: CheckpointRef, before: CheckpointRef) -> str:
    path = Path(ref.uri) / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    return "manifest.json"


KINDS: tuple[Callable[[CheckpointRef, CheckpointRef], str], ...] = (
    flip_body, flip_header, truncate, swap, replay_data, replay_part, lose_data, change_root, tear_root,
)  # fmt: skip
kinds = pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
seen_by_size = (truncate, lose_data, change_root, tear_root)
"""What is found without reading every byte: ``survey`` passes it over as it is."""


@kinds
def test_whoever_loads_by_reference_is_told_which_checkpoint_is_damaged(
    tmp_path: Path, damage: Callable[[CheckpointRef, CheckpointRef], str]
) -> None:
    first, second = chain(tmp_path, 1, 2)
    words = damage(second, first)
    state = blank()
    with pytest.raises(DamagedCheckpointError) as caught:
        load(second, state)
    assert words in str(caught.value)
    assert caught.value.uri == second.uri
    assert caught.value.hint
    assert not any(t.tensor.view(torch.uint8).any() for t in state.tensors)


@kinds
def test_the_older_one_is_taken_if_that_is_wanted_and_the_newest_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[CheckpointRef, CheckpointRef], str]
) -> None:
    first, second = chain(tmp_path, 1, 2)
    words = damage(second, first)
    with pytest.raises(DamagedCheckpointError) as caught:
        load_state(str(tmp_path), blank())
    assert caught.value.hint
    assert not (Path(second.uri) / DAMAGED).exists(), "who was not asked to give it up changes nothing"
    state = blank()
    with caplog.at_level(logging.WARNING):
        found = load_state(str(tmp_path), state, fallback=True)
    assert (found.uri, found.step) == (first.uri, 1)
    assert holds(state, 1)
    assert words in "".join(found.passed_over)
    if damage not in seen_by_size:
        assert second.uri in caplog.text
        assert words in (Path(second.uri) / DAMAGED).read_text()
    assert newest(str(tmp_path)) == first
    assert survey(str(tmp_path)).unusable


def test_a_second_damage_is_gone_back_from_as_well_and_in_the_end_all_are_named(tmp_path: Path) -> None:
    first, second, third = chain(tmp_path, 1, 2, 3)
    flip_body(third, second)
    flip_body(second, first)
    found = load_state(str(tmp_path), blank(), fallback=True)
    assert found.uri == first.uri
    assert [third.uri in found.passed_over[0], second.uri in found.passed_over[1]] == [True, True]
    flip_body(first, first)
    with pytest.raises(DamagedCheckpointError, match="no checkpoint is left") as caught:
        load_state(str(tmp_path), blank(), fallback=True)
    assert all(ref.uri in str(caught.value) for ref in (first, second, third))


def test_a_model_that_does_not_fit_is_no_reason_to_take_an_older_one(tmp_path: Path) -> None:
    _, second = chain(tmp_path, 1, 2)
    values = full_values({"w": (3, 3)})
    with pytest.raises(UnfitCheckpointError, match="does not fit"):
        load_state(str(tmp_path), rank_state(values, plain(values, 1), "rank:0"), fallback=True)
    assert newest(str(tmp_path)) == second


def test_what_it_descends_from_is_what_its_parents_say(tmp_path: Path) -> None:
    """Step 20 was rolled back to 10; what came after it in the old lineage is not gone back to."""
    one, old = chain(tmp_path, 10, 20)
    two = save_step(tmp_path, 15, one, lineage=2)
    three = save_step(tmp_path, 25, two, lineage=2)
    assert older(three) == (two, one)
    assert older(old) == (one,)
    mark_damaged(two, DamagedCheckpointError("a flip"))
    assert older(three) == (one,), "the chain goes on through a damaged one"
    shutil.rmtree(two.uri)
    assert older(three) == (), "nobody knows any more where lineage 2 began"
    four = save_step(tmp_path, 30, two, lineage=2)
    assert older(four) == (three,), "inside a lineage there is but one chain"


def test_a_mark_is_told_and_taking_it_away_undoes_it(tmp_path: Path) -> None:
    first, second = chain(tmp_path, 1, 2)
    assert mark_damaged(second, DamagedCheckpointError("param of w"))
    assert mark_damaged(second, DamagedCheckpointError("said again")), "the first finding stays"
    (problem,) = passed_over(first)
    assert problem == f"{second.uri} was found damaged: param of w"
    (Path(second.uri) / DAMAGED).unlink()
    assert newest(str(tmp_path)) == second


@pytest.mark.parametrize("meanwhile", ["marked", "removed"])
def test_older_ones_are_not_passed_over_whatever_becomes_of_the_one_taken(tmp_path: Path, meanwhile: str) -> None:
    first, second, third = chain(tmp_path, 1, 2, 3)
    for damaged in (first, third):
        mark_damaged(damaged, DamagedCheckpointError("a flip"))
    if meanwhile == "marked":
        mark_damaged(second, DamagedCheckpointError("another flip"))
    else:
        shutil.rmtree(second.uri)
    assert passed_over(second) == (f"{third.uri} was found damaged: a flip",)


@pytest.mark.parametrize("looked_for", ["manifest.json", "damaged"])
def test_a_newer_one_that_is_being_removed_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_for: str
) -> None:
    """What removes it comes in between two looks."""
    first, second = chain(tmp_path, 1, 2)
    size, read = LocalStorage.size, LocalStorage.read

    def removed(path: str) -> None:
        if second.attempt in path and path.endswith(looked_for):
            shutil.rmtree(second.uri, ignore_errors=True)

    def size_before(self: LocalStorage, path: str) -> int | None:
        found = size(self, path)
        removed(path)
        return found

    def read_before(self: LocalStorage, path: str, **options: Any) -> bytes:
        try:
            return read(self, path, **options)
        finally:
            removed(path)

    monkeypatch.setattr(LocalStorage, "size", size_before)
    monkeypatch.setattr(LocalStorage, "read", read_before)
    assert passed_over(first) == ()
    assert not Path(second.uri).exists()


def test_a_checkpoint_that_is_gone_is_not_brought_back_by_a_mark(tmp_path: Path) -> None:
    _, second = chain(tmp_path, 1, 2)
    shutil.rmtree(second.uri)
    assert not mark_damaged(second, DamagedCheckpointError("missing"))
    assert not Path(second.uri).exists()


@pytest.mark.parametrize("damage", [flip_body, truncate], ids=["marked", "seen"])
def test_retention_does_not_count_damaged_ones(
    tmp_path: Path, damage: Callable[[CheckpointRef, CheckpointRef], str]
) -> None:
    refs = chain(tmp_path, 1, 2, 3, 4)
    for ref in refs[2:]:
        words = damage(ref, refs[0])
        if damage is flip_body:
            mark_damaged(ref, DamagedCheckpointError(words))
    gone = retain(str(tmp_path), job=JOB, keep=2)
    assert sorted(gone) == ["/".join(ref.uri.split("/")[-2:]) for ref in refs[2:]]
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [2, 1]
    assert not survey(str(tmp_path)).damaged, "two others are there"


def test_damaged_ones_stay_as_long_as_there_is_room_and_the_last_whole_one_always(tmp_path: Path) -> None:
    refs = chain(tmp_path, 1, 2, 3)
    for ref in refs[1:]:
        mark_damaged(ref, DamagedCheckpointError("a flip"))
    assert retain(str(tmp_path), job=JOB, keep=3) == ()
    pin(refs[1])
    assert len(retain(str(tmp_path), job=JOB, keep=1)) == 1
    found = survey(str(tmp_path))
    assert [info.ref for info in found.checkpoints] == [refs[0]]
    assert [info.ref for info in found.damaged] == [refs[1]], "somebody wants to look at it"
    mark_damaged(refs[0], DamagedCheckpointError("a flip"))
    assert retain(str(tmp_path), job=JOB, keep=1) == ()


def test_bytes_that_were_changed_on_their_way_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (ref,) = chain(tmp_path, 1)
    plainly = LocalStorage.read_ranges
    flipped: list[str] = []

    def once(self: LocalStorage, path: str, ranges: list) -> None:  # type: ignore[type-arg]
        plainly(self, path, ranges)
        if not flipped and ranges[0].offset:
            flipped.append(path)
            ranges[0].into[0] ^= 1

    monkeypatch.setattr(LocalStorage, "read_ranges", once)
    state = blank()
    with caplog.at_level(logging.WARNING):
        load(ref, state)
    assert flipped
    assert holds(state, 1)
    assert "came with wrong bytes; read again, they are right" in caplog.text


def test_a_folder_that_is_not_mounted_is_no_damage(tmp_path: Path) -> None:
    (ref,) = chain(tmp_path / "mount", 1)
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    (tmp_path / "mount").mkdir()
    with pytest.raises(StorageAwayError, match="empty or not there") as caught:
        load(ref, blank())
    assert "mounted" in caught.value.hint


@pytest.mark.parametrize(("number", "kind"), [(13, StorageRefusedError), (5, StorageAwayError)])
def test_a_storage_that_fails_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[CheckpointError]
) -> None:
    (ref,) = chain(tmp_path, 1)

    def refuse(self: LocalStorage, path: str, ranges: object) -> None:
        raise OSError(number, "the medium says no", path)

    monkeypatch.setattr(LocalStorage, "read_ranges", refuse)
    for first in (True, False):
        with pytest.raises(kind, match="the medium says no") as caught:
            load(ref, blank(), verify_first=first)
        assert caught.value.hint


def test_one_that_lost_its_root_manifest_cannot_be_told_from_a_save_that_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, broken = tmp_path / "lost", tmp_path / "broken"
    first, second = chain(lost, 10, 20)
    (Path(second.uri) / ROOT_MANIFEST).unlink()
    state = blank()
    loaded = load_state(lost, state, fallback=True)
    assert (loaded.step, loaded.passed_over, passed_over(first)) == (10, (), ())
    assert holds(state, 10)

    def killed(self: LocalStorage, path: str, data: bytes) -> None:
        raise OSError("injected")

    (earlier,) = chain(broken, 10)
    monkeypatch.setattr(LocalStorage, "create_file", killed)
    with pytest.raises(CheckpointError, match="injected"):
        save_step(broken, 20, earlier)
    assert files(broken) == files(lost)


def files(folder: Path) -> dict[str, bytes]:
    """All but the root manifests, which say when they were written."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ROOT_MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
