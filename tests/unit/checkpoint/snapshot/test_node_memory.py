"""What a node's memory says that it has: nothing that is not complete, and whole.

Without it a recovery could count on a snapshot that is not whole.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import Attempt, CheckpointWriter, assign, load
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import rank_holder, replicated
from trainctl.checkpoint.layout.region import Flat, volume
from trainctl.checkpoint.live.state import LocalState, StateTensor, state_of
from trainctl.checkpoint.load.loading import plan_load
from trainctl.checkpoint.memory.node_memory import NodeMemory, folder_of
from trainctl.checkpoint.save.saving import live_data
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef
from trainctl.core.system.faults import FaultPlan


def state(seed: int = 1) -> LocalState:
    torch.manual_seed(seed)
    return state_of(nn.Linear(40, 30), instance="i", version=StateVersion(1, 5))


def snap(memory: NodeMemory, *, step: int = 5, lineage: int = 1, attempt: str = "0" * 15 + "1") -> SnapshotRef:
    """Two parts, both here."""
    found = state()
    job = Attempt(job="j", step=step, lineage=lineage, epoch=1, attempt=attempt)
    runs = assign(replicated(found.shapes(), [rank_holder(0), rank_holder(1)]))
    writer = CheckpointWriter(memory.uri, faults=FaultPlan())
    data = [live_data(found, runs[rank_holder(n)]) for n in (0, 1)]
    parts = [writer.write_part(job, writer=n, data=own, shapes=found.shapes()) for n, own in enumerate(data)]
    writer.seal(job, state=found, parts=parts, parent=None)
    return SnapshotRef(lineage=lineage, step=step, attempt=attempt)


@pytest.fixture
def memory(tmp_path: Path) -> NodeMemory:
    found = NodeMemory(tmp_path / "memory", "job-1")
    found.make()
    return found


def size_bytes(memory: NodeMemory, ref: SnapshotRef, *parts: int) -> int:
    """Of the files of some parts, as the file system says."""
    files = (path for part in parts for path in memory.where(ref).rglob(f"w{part:05}*"))
    return sum(path.stat().st_size for path in files)


def test_what_is_complete_is_held(memory: NodeMemory) -> None:
    assert memory.held() == ()
    ref = snap(memory)
    everything = size_bytes(memory, ref, 0, 1)
    assert everything > 4 * 31 * 40
    assert memory.held() == (SnapshotHeld(snapshot=ref, parts=2, held=(0, 1), size_bytes=everything),)
    assert os.stat(memory.uri).st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest"])
def test_a_part_that_is_not_whole_is_not_held(memory: NodeMemory, damage: str) -> None:
    ref = snap(memory)
    data = memory.where(ref) / "data" / "w00001-000.safetensors"
    match damage:
        case "missing":
            data.unlink()
        case "truncated":
            os.truncate(data, data.stat().st_size - 1)
        case _:
            (memory.where(ref) / "parts" / "w00001.json").unlink()
    (held,) = memory.held()
    assert held == SnapshotHeld(snapshot=ref, parts=2, held=(0,), size_bytes=size_bytes(memory, ref, 0))


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00"])
def test_without_a_root_manifest_there_is_no_snapshot(memory: NodeMemory, damage: bytes) -> None:
    kept, lost = snap(memory), snap(memory, step=6, attempt="0" * 15 + "2")
    (memory.where(lost) / "manifest.json").write_bytes(damage)
    assert [held.snapshot for held in memory.held()] == [kept]
    assert len(memory.attempts()) == 2


def test_what_else_lies_there_is_left_alone(memory: NodeMemory) -> None:
    ref = snap(memory)
    (Path(memory.uri) / "notes").mkdir()
    memory.remove([folder_of(ref), "step-000000000099/0123456789abcdef"])
    assert memory.attempts() == ()
    assert sorted(path.name for path in Path(memory.uri).iterdir()) == ["notes"]


def test_oldest_first_by_lineage_then_step(memory: NodeMemory) -> None:
    later = snap(memory, step=4, lineage=2, attempt="0" * 15 + "3")
    earlier = snap(memory, step=9, lineage=1, attempt="0" * 15 + "4")
    assert [held.snapshot for held in memory.held()] == [earlier, later]


def shard(whole: LocalState, rank: int) -> LocalState:
    """What one of the two writers held of it."""
    runs = assign(replicated(whole.shapes(), [rank_holder(0), rank_holder(1)]))[rank_holder(rank)]
    tensors = []
    for held in whole.tensors:
        for run in runs.get(held.key, ()):
            values = torch.zeros(volume(run))
            tensors.append(StateTensor(held.key, held.shape, run, values))
    return LocalState(tuple(tensors))


def test_only_what_is_read_has_to_be_there(memory: NodeMemory) -> None:
    snapshot, everything = snap(memory), state()
    uri = str(memory.where(snapshot))
    ref = CheckpointRef(uri=uri, step=5, lineage=1, attempt=snapshot.attempt, manifest_sha256="")
    target = shard(everything, 0)
    keys = everything.shapes()
    assert plan_load(ref, everything).files == ("data/w00000-000.safetensors", "data/w00001-000.safetensors")
    (memory.where(snapshot) / "data" / "w00001-000.safetensors").unlink()
    load(ref, target, everything=keys, all_here=False)
    flat = {held.key: held.tensor.reshape(-1) for held in everything.tensors}
    for held in target.tensors:
        assert isinstance(held.region, Flat)
        assert torch.equal(held.tensor, flat[held.key][held.region.start : held.region.stop])
    with pytest.raises(CheckpointError, match=r"w00001-000.safetensors is missing"):
        load(ref, target, everything=keys)


@pytest.mark.parametrize("path", ["data/w00001-*", "parts/*1.json", "parts/contents.json", "manifest.json"])
def test_what_is_damaged_is_dropped_and_nothing_else(memory: NodeMemory, path: str) -> None:
    ref = snap(memory)
    assert memory.drop_damaged(ref) == {}
    before = {file for file in memory.where(ref).rglob("*") if file.is_file()}
    (bad,) = memory.where(ref).glob(path)
    flip(bad)
    found = memory.drop_damaged(ref)
    assert list(found) == [str(bad.relative_to(memory.where(ref)))]
    assert before - {file for file in memory.where(ref).rglob("*") if file.is_file()} == {bad}
    assert memory.drop_damaged(ref).keys() == set()


def test_a_file_that_was_cut_off_is_damaged_and_one_that_is_not_here_is_not(memory: NodeMemory) -> None:
    ref = snap(memory)
    cut, gone = (next(memory.where(ref).glob(f"data/w0000{n}-*")) for n in (0, 1))
    os.truncate(cut, 100)
    gone.unlink()
    assert [path.rpartition("/")[2] for path in memory.drop_damaged(ref)] == [cut.name]
    assert not cut.exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
