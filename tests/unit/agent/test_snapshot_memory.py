"""The agent's side of snapshots: memory that is its own, for jobs that may need it.

Without it snapshots of jobs that are gone could fill a node, or those of a live one be removed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from trainctl.agent.forkserver.client import Child
from trainctl.agent.main import main
from trainctl.agent.snapshot_memory import KEPT_ON_DISK_S, KEPT_S, SnapshotMemory, SnapshotRoom
from trainctl.agent.worker import Worker, WorkerEvents
from trainctl.core.codec import to_wire
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.records.spec import CheckpointSpec, JobMetadata, JobSpec, SnapshotsSpec, TrainJob
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.core.system import memory_folder as module
from trainctl.core.system.memory_folder import claim_memory_folder, memory_folder, remove_memory_folder
from trainctl.parallel.bridge import Snapshotted


def wanted(job: str, interval_steps: int = 10, interval: str = "", place: str = "memory") -> WorkerDesired:
    snapshots = SnapshotsSpec(interval_steps=interval_steps, interval=interval, place=place)
    spec = JobSpec(checkpoint=CheckpointSpec(snapshots=snapshots))
    wire = to_wire(TrainJob(metadata=JobMetadata(name=job), spec=spec))
    return WorkerDesired(
        job_uid=job, job_name=job, island="i", slot=0, incarnation=1, instruction=Instruction.STANDBY, spec=wire
    )


def put(folder: Path, *jobs: str) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for job in jobs:
        (folder / job).mkdir()
        (folder / job / "file").write_bytes(b"1")


def jobs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_made_for_who_wants_it(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    memory = SnapshotMemory(folder, 0.0)
    assert memory.of(wanted("none", interval_steps=0)) is None
    assert not folder.exists()
    assert memory.of(wanted("some")) == folder
    assert memory.of(wanted("by time", interval_steps=0, interval="auto")) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert SnapshotMemory(None, 0.0).of(wanted("some")) is None


def test_snapshots_stay_for_a_while_without_workers(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    memory = SnapshotMemory(folder, 0.0)
    put(folder, "busy", "idle")
    memory.know([wanted("busy"), wanted("idle")], 10.0)
    memory.sweep([wanted("busy")], 10.0 + KEPT_S)
    assert jobs(folder) == ["busy", "idle"]
    memory.sweep([wanted("busy")], 10.1 + KEPT_S)
    assert jobs(folder) == ["busy"]
    memory.forget(["busy", "unheard-of"])
    assert jobs(folder) == []


def test_what_an_earlier_agent_left_has_the_same_time(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    put(folder, "old")
    memory = SnapshotMemory(folder, 1000.0)
    memory.sweep([], 1000.0 + KEPT_S)
    assert jobs(folder) == ["old"]
    memory.sweep([], 1000.1 + KEPT_S)
    assert jobs(folder) == []


def test_each_kind_is_for_those_who_want_it(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    room = SnapshotRoom(memory, disk, 0.0)
    assert room.of(wanted("none", interval_steps=0)) is None
    assert room.of(wanted("plain")) == memory
    assert not disk.exists()
    assert room.of(wanted("lasting", place="disk")) == disk
    assert disk.stat().st_mode & 0o777 == 0o700
    assert room.of(wanted("newer", place="tape")) is None, "of a version that knows more than this one"
    assert SnapshotRoom(memory, None, 0.0).of(wanted("lasting", place="disk")) is None
    assert SnapshotRoom(None, disk, 0.0).of(wanted("plain")) is None


def test_what_is_on_a_disk_outlives_the_agent_and_stays_longer(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    put(memory, "job")
    put(disk, "job", "over")
    first = SnapshotRoom(memory, disk, 0.0)
    first.forget(["over"])
    first.close()
    assert (memory.exists(), jobs(disk)) == (False, ["job"])
    again = SnapshotRoom(memory, disk, 1000.0)
    again.sweep([], 1000.0 + KEPT_ON_DISK_S)
    assert jobs(disk) == ["job"]
    again.know([wanted("job", place="disk")], 1000.0 + KEPT_ON_DISK_S)
    again.sweep([], 1000.1 + KEPT_ON_DISK_S)
    assert jobs(disk) == ["job"]
    again.sweep([], 1000.1 + 2 * KEPT_ON_DISK_S)
    assert jobs(disk) == []


def test_at_its_end_an_agent_gives_the_memory_back(tmp_path: Path) -> None:
    memory = SnapshotMemory(tmp_path / "memory", 0.0)
    put(tmp_path / "memory", "job")
    memory.close()
    assert not (tmp_path / "memory").exists()
    SnapshotMemory(None, 0.0).close()


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file", "no parent"])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, trap: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody may write to shared memory: what lies there under our name may be a trap."""
    folder, elsewhere = tmp_path / "memory", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").write_bytes(b"1")
    match trap:
        case "open to others":
            folder.mkdir()
            os.chmod(folder, 0o777)
        case "a link":
            folder.symlink_to(elsewhere)
        case "a file":
            folder.write_bytes(b"")
        case _:
            folder = tmp_path / "not" / "there"
    assert claim_memory_folder(folder)
    memory = SnapshotMemory(folder, 0.0)
    assert memory.of(wanted("job")) is None
    assert "job job: no snapshots on this node" in caplog.text
    memory.sweep([], 1e6)
    remove_memory_folder(folder)
    assert (elsewhere / "precious").exists()


def test_the_folder_is_that_of_the_agent_and_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARED_MEMORY", tmp_path)
    one, other = memory_folder(tmp_path / "a"), memory_folder(tmp_path / "b")
    assert one != other
    assert one == memory_folder(tmp_path / "a")
    assert one.parent == tmp_path
    assert str(os.geteuid()) in one.name


def test_the_help_says_where_snapshots_go(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--memory-dir DIR" in said
    assert "--snapshot-dir DIR" in said


def test_what_a_worker_tells_of_snapshots_gets_older(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, changed = 100.0, []
    monkeypatch.setattr("trainctl.agent.worker.time.monotonic", lambda: now_s)
    events = WorkerEvents(changed=lambda: changed.append(now_s), figures=lambda *_: None, report=lambda _: None)
    worker = Worker(wanted("a"), entry="x:y", node_dir="", local_rank=0, secrets=None, events=events)
    worker.forked(MagicMock(spec=Child, pid=4711))
    changed.clear()
    assert worker.observe(now_s).snapshots is None
    first = SnapshotsMade(generation=2, made=1)
    worker._hear(Snapshotted(first))
    assert worker.observe(103.0).snapshots == replace(first, age_s=3.0)
    now_s = 105.0
    second = SnapshotsMade(generation=2, made=2)
    worker._hear(Snapshotted(second))
    assert changed == [100.0], "the first is news; those after it come often, and the next heartbeat takes them along"
    now_s = 110.0
    stopped = replace(second, error="that of step 20 failed: full", cause="no_room")
    worker._hear(Snapshotted(stopped))
    assert worker.observe(116.0).snapshots == replace(stopped, age_s=11.0), "none is newer"
    now_s = 120.0
    worker._hear(Snapshotted(SnapshotsMade(generation=3, made=1)))
    assert worker.observe(121.0).snapshots == SnapshotsMade(generation=3, made=1, age_s=1.0)
    assert changed == [100.0, 110.0, 120.0]
