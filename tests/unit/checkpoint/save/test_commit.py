"""Without it a save that was broken off could be taken for the newest checkpoint, or cost the one before."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainctl.checkpoint.engine import CheckpointWriter, load
from trainctl.checkpoint.kept.catalog import inspect, newest, resolve, survey
from trainctl.checkpoint.kept.pins import pin, unpin
from trainctl.checkpoint.kept.retention import discard
from trainctl.checkpoint.layout.region import whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.manifest.names import step_folder
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError, FencedError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FAULTS_VARIABLE, FaultPlan
from unit.checkpoint.ranks import at_step, attempt, full_values, key, plain, save, save_parts

VALUES = full_values({"w": (6,)})


def armed(monkeypatch: pytest.MonkeyPatch, point: str, action: str) -> FaultPlan:
    with monkeypatch.context() as patched:
        patched.setenv(FAULTS_VARIABLE, json.dumps([{"point": point, "action": action}]))
        return FaultPlan()


def save_step(uri: Path, step: int, **options: object) -> CheckpointRef:
    parent = options.pop("parent", None)
    assert parent is None or isinstance(parent, CheckpointRef)
    return save(uri, at_step(VALUES, step), of=attempt(step, **options), parent=parent)  # type: ignore[arg-type]


def test_the_newest_is_the_highest_step(tmp_path: Path) -> None:
    assert newest(str(tmp_path)) is None
    assert newest(str(tmp_path / "nowhere")) is None
    for step in (5, 20, 10):
        save_step(tmp_path, step)
    found = newest(str(tmp_path))
    assert found is not None
    assert found.step == 20
    assert resolve(str(tmp_path)) == found == resolve(found.uri)
    assert resolve(str(tmp_path / "step-000000000005")).step == 5
    assert inspect(str(tmp_path)).manifest.tensors == 1


def test_a_stale_lineage_or_leader_can_complete_an_attempt_but_never_win(tmp_path: Path) -> None:
    save_step(tmp_path, 30, lineage=2, epoch=4)
    save_step(tmp_path, 90, lineage=1, epoch=4)
    save_step(tmp_path, 80, lineage=2, epoch=3)
    found = newest(str(tmp_path))
    assert found is not None
    assert (found.lineage, found.step) == (2, 30)


def test_a_job_that_went_on_from_another_comes_after_it(tmp_path: Path) -> None:
    old = save_step(tmp_path, 50, job="old", lineage=3, epoch=9)
    new = save_step(tmp_path, 60, job="new", parent=old)
    newer = save_step(tmp_path, 70, job="newer", parent=new)
    assert newest(str(tmp_path)) == newer
    assert newest(str(tmp_path), job="old") == old
    assert inspect(newer.uri).manifest.ancestors == ("old", "new")


def test_unrelated_jobs_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    save_step(tmp_path, 50, job="a")
    save_step(tmp_path, 60, job="b")
    with pytest.raises(CheckpointError, match="ambiguous") as caught:
        newest(str(tmp_path))
    assert "job a, step 50" in str(caught.value)
    assert newest(str(tmp_path), job="a") is not None


def test_a_lost_parent_does_not_cost_the_child(tmp_path: Path) -> None:
    gone = CheckpointRef(uri=str(tmp_path / "gone"), step=4, lineage=1, attempt="f" * 16, manifest_sha256="")
    ref = save_step(tmp_path / "c", 5, parent=gone)
    parent = inspect(ref.uri).manifest.parent
    assert parent is not None
    assert (parent.step, parent.attempt) == (4, "f" * 16)


def test_a_foreign_folder_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "config.json").write_text("{}")
    for look in (newest, resolve):
        with pytest.raises(CheckpointError, match=r"is foreign: .* found config.json, photos"):
            look(str(tmp_path))


def test_a_folder_that_is_not_there_is_told_from_an_empty_one_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "step-000000000003").mkdir()
    attempt_in = "step-000000000003/0123456789abcdef"
    found = {
        "nowhere": f"nowhere holds no complete checkpoint: there is no such folder in {tmp_path}",
        "nowhere/at/all": f"there is no such folder in {tmp_path}",
        "empty": "empty holds no complete checkpoint: the folder is empty",
        "file": f"file holds no complete checkpoint: {tmp_path}/file is a file",
        "step-000000000004": f"step-000000000004 holds no complete checkpoint: there is no such folder in {tmp_path}",
        "step-000000000003": "step-000000000003 holds no complete checkpoint: the folder is empty",
        attempt_in: f"manifest.json is missing: .*, there is no such folder in {tmp_path}/step-000000000003",
    }
    for name, words in found.items():
        with pytest.raises(CheckpointError, match=f"(?m){words}$") as caught:
            resolve(str(tmp_path / name))
        assert "resum" not in caught.value.hint
    with pytest.raises(CheckpointError, match="the folder is empty, or there is no such folder"):
        resolve("memory://nowhere-at-all")


def test_an_unusable_newest_falls_back_and_is_reported(tmp_path: Path) -> None:
    good = save_step(tmp_path, 1)
    bad = save_step(tmp_path, 2)
    next((Path(bad.uri) / "data").iterdir()).unlink()
    assert newest(str(tmp_path)) == good
    (problem,) = survey(str(tmp_path)).unusable
    assert "is missing" in problem
    with pytest.raises(CheckpointError, match="step-000000000002 holds no complete checkpoint"):
        resolve(str(tmp_path / "step-000000000002"))


@pytest.mark.parametrize("point", ["checkpoint.write", "checkpoint.seal"])
def test_a_failure_before_the_manifest_leaves_the_previous_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    before = save_step(tmp_path, 1)
    writer = CheckpointWriter(str(tmp_path), faults=armed(monkeypatch, point, "raise"))
    values = at_step(VALUES, 2)
    with pytest.raises(RuntimeError, match=point):
        _save_with(writer, values, 2)
    assert newest(str(tmp_path)) == before
    writer.discard(attempt(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000001"]


def test_a_failure_after_the_manifest_leaves_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_step(tmp_path, 1)
    writer = CheckpointWriter(str(tmp_path), faults=armed(monkeypatch, "checkpoint.sealed", "raise"))
    with pytest.raises(RuntimeError, match=r"checkpoint\.sealed"):
        _save_with(writer, at_step(VALUES, 2), 2)
    found = newest(str(tmp_path))
    assert found is not None
    assert found.step == 2


def _save_with(writer: CheckpointWriter, values: dict, step: int) -> CheckpointRef:  # type: ignore[type-arg]
    parts = save_parts(writer, values, plain(values, 2), attempt(step))
    state = LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in values.items()))
    return writer.seal(attempt(step), state=state, parts=parts, parent=None)


_KILLED = """
import sys
from unit.checkpoint.save.test_commit import VALUES, _save_with
from unit.checkpoint.ranks import at_step
from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.core.system.faults import FaultPlan
_save_with(CheckpointWriter(sys.argv[1], faults=FaultPlan(), layout=sys.argv[2]), at_step(VALUES, 2), 2)
"""


@pytest.mark.parametrize("layout", ["chunked", "hf"])
@pytest.mark.parametrize(
    ("point", "expected"), [("checkpoint.write", 1), ("checkpoint.seal", 1), ("checkpoint.sealed", 2)]
)
def test_sigkill_at_each_point(tmp_path: Path, point: str, expected: int, layout: str) -> None:
    save_step(tmp_path, 1)
    root = Path(__file__).parents[4]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / name) for name in ("protos", "checkpoint", "tests")),
        FAULTS_VARIABLE: json.dumps([{"point": point, "action": "kill"}]),
    }
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), layout], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = newest(str(tmp_path))
    assert found is not None
    assert found.step == expected
    live = torch.zeros(6)
    load(found, LocalState((StateTensor(key("w"), (6,), whole((6,)), live),)))
    assert torch.equal(live.view(torch.uint8), VALUES[key("w")].view(torch.uint8))


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save_step(tmp_path, 1)
    faults = armed(monkeypatch, "checkpoint.write", "enospc")
    writer = CheckpointWriter(str(tmp_path), faults=faults)
    with pytest.raises(CheckpointError, match=r"saving job job-a, step 2, .* as writer 0 .* no space left") as caught:
        _save_with(writer, at_step(VALUES, 2), 2)
    assert "free space" in caught.value.hint
    writer.discard(attempt(2))
    assert newest(str(tmp_path)) == before
    assert not (tmp_path / "step-000000000002").exists()
    assert _save_with(writer, at_step(VALUES, 3), 3).step == 3


def test_two_attempts_of_one_step_stay_apart(tmp_path: Path) -> None:
    one, two = attempt(1, nonce="one"), attempt(1, nonce="two")
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    first = save_parts(writer, VALUES, plain(VALUES, 2), one)
    second = save_parts(writer, VALUES, plain(VALUES, 2), two)
    state = LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in VALUES.items()))
    with pytest.raises(CheckpointError, match=r"those of writers \[1\] of another attempt"):
        writer.seal(one, state=state, parts=[first[0], second[1]], parent=None)
    with pytest.raises(CheckpointError, match=r"with 24 bytes in all, found 0 bytes of writers \[\d\]"):
        writer.seal(one, state=state, parts=[p for p in first if p.data_bytes == 0], parent=None)
    assert newest(str(tmp_path)) is None


def test_an_attempt_is_sealed_once(tmp_path: Path) -> None:
    ref = save(tmp_path, VALUES)
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    parts = inspect(ref.uri).manifest.parts
    state = LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in VALUES.items()))
    with pytest.raises(FencedError, match="sealed by another process"):
        writer.seal(attempt(), state=state, parts=parts, parent=None)
    assert newest(str(tmp_path)) == ref


def test_retention_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    refs: list[CheckpointRef] = []
    for step in range(1, 7):
        refs.append(save_step(tmp_path, step, parent=refs[-1] if refs else None))
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    removed = writer.retain(job="job-a", keep=2, protect={refs[1].attempt})
    assert len(removed) == 3
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [6, 5, 2]
    assert writer.retain(job="job-a", keep=0) != ()
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [6]
    assert len(list(tmp_path.iterdir())) == 1


def test_retention_gives_up_a_branch_that_was_rolled_back_first(tmp_path: Path) -> None:
    base = save_step(tmp_path, 10)
    save_step(tmp_path, 20, parent=base)
    save_step(tmp_path, 15, lineage=2, parent=base)
    CheckpointWriter(str(tmp_path), faults=FaultPlan()).retain(job="job-a", keep=2)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [15, 10]


def test_retention_removes_old_leftovers_but_no_attempt_in_flight(tmp_path: Path) -> None:
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    for step in (1, 2, 9):
        values = at_step(VALUES, step)
        save_parts(writer, values, plain(values, 2), attempt(step))
    save_step(tmp_path, 5)
    removed = writer.retain(job="job-a", keep=3, protect={attempt(2).attempt})
    assert removed == (attempt(1).folder,)
    assert survey(str(tmp_path)).interrupted == ((2, attempt(2).attempt), (9, attempt(9).attempt))


def test_retention_removes_old_folders_of_steps_in_which_nothing_is(tmp_path: Path) -> None:
    for step in (1, 2, 9):
        (tmp_path / step_folder(step)).mkdir()
    (tmp_path / step_folder(2) / "notes").write_bytes(b"somebody's")
    save_step(tmp_path, 5)
    assert survey(str(tmp_path)).empty == (1, 9)
    assert CheckpointWriter(str(tmp_path), faults=FaultPlan()).retain(job="job-a", keep=3) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [step_folder(step) for step in (2, 5, 9)]


def test_retention_leaves_a_pinned_one_until_it_is_unpinned(tmp_path: Path) -> None:
    refs = [save_step(tmp_path, step) for step in range(1, 5)]
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    pin(refs[1])
    pin(refs[1])
    writer.retain(job="job-a", keep=1)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [4, 2]
    with pytest.raises(CheckpointError):
        pin(refs[0])
    assert not Path(refs[0].uri).exists(), "nothing is left where nothing could be pinned"
    unpin(refs[1])
    unpin(refs[1])
    writer.retain(job="job-a", keep=1)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [4]


def test_a_checkpoint_that_vanishes_while_it_is_pinned_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = save_step(tmp_path, 1)
    create = LocalStorage.create_file

    def late(self: LocalStorage, path: str, data: bytes) -> None:
        discard(ref)
        create(self, path, data)

    monkeypatch.setattr(LocalStorage, "create_file", late)
    with pytest.raises(CheckpointError, match="is missing"):
        pin(ref)
    assert not Path(ref.uri).exists()


def test_one_checkpoint_is_discarded_and_nothing_else(tmp_path: Path) -> None:
    kept, gone = save_step(tmp_path, 1), save_step(tmp_path, 2)
    pin(gone)
    discard(gone)
    discard(gone)
    assert [info.ref for info in survey(str(tmp_path)).checkpoints] == [kept]
    with pytest.raises(CheckpointError, match="expected the folder of an attempt"):
        discard(dataclasses.replace(kept, uri=str(tmp_path)))


def test_retention_never_touches_another_job(tmp_path: Path) -> None:
    other = save_step(tmp_path, 1, job="other")
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    for step in (2, 3):
        save_step(tmp_path, step, job="mine", parent=other)
    writer.retain(job="mine", keep=1)
    assert [(i.manifest.job, i.ref.step) for i in survey(str(tmp_path)).checkpoints] == [("mine", 3), ("other", 1)]


def test_the_manifest_is_deleted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    real = LocalStorage.delete

    def crash_after_first(self: LocalStorage, path: str) -> None:
        if deleted:
            raise OSError("crash")
        deleted.append(path)
        real(self, path)

    save_step(tmp_path, 1)
    save_step(tmp_path, 2)
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    monkeypatch.setattr(LocalStorage, "delete", crash_after_first)
    with pytest.raises(CheckpointError, match="crash"):
        writer.retain(job="job-a", keep=1)
    assert deleted == [f"{attempt(1).folder}/manifest.json"]
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [2]


def test_artifact_names_stay_inside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found '\.\./evil'"):
        save(tmp_path, VALUES, artifacts={"../evil": b""})


def test_the_catalog_needs_no_torch(tmp_path: Path) -> None:
    ref = save(tmp_path, VALUES)
    root = Path(__file__).parents[4]
    path = os.pathsep.join(str(root / name) for name in ("protos", "checkpoint"))
    script = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = sys.modules['fsspec'] = None\n"
        "from trainctl.checkpoint.kept.catalog import newest\n"
        f"print(newest({str(tmp_path)!r}).attempt)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ref.attempt


def test_an_attempt_knows_its_folder() -> None:
    of = dataclasses.replace(attempt(1200), attempt="0123456789abcdef")
    assert of.folder == "step-000000001200/0123456789abcdef"
