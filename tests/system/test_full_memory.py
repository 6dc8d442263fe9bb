"""The memory of a node is full, as its kernel says it: a small memory file system of its own, which is filled.

Without it snapshots could take a node down when its memory is full.

It is mounted in a user namespace, so that it takes no root but a system that lets people make those, and reached from
outside through the process that holds it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multiproc.sharded_toy import LONG
from multiproc.sharded_world import check, run, surviving
from multiproc.snapshot_nodes import NODES, SLOTS, begun, complete, last_of_all, make, went_back
from multiproc.snapshot_worlds import ALWAYS_S
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.part import NO_ROOM
from trainctl.core.records.spec import SnapshotsSpec
from trainctl.core.records.step import StepFigures
from trainctl.core.system.memory_folder import claim_memory_folder, memory_folder

PLENTY_BYTES = 1 << 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, on however many ranks."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, **LONG)


@contextmanager
def small_memory(folder: Path, node: str) -> Iterator[Path]:
    """Two megabytes are all that the memory of this node of a world in ``folder`` has."""
    assert not claim_memory_folder(memory_folder(folder))
    at = memory_folder(folder) / node
    mount = "mount -t tmpfs -o size=2m,mode=700 none /mnt && echo mounted && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            said = holder.stdout.readline()
            assert said == "mounted\n", f"a user namespace and a tmpfs in it are needed: {holder.stderr.read()}"
            at.symlink_to(f"/proc/{holder.pid}/root/mnt")
            yield at
        finally:
            holder.stdin.close()
            holder.wait(20)


def fill(memory: Path, *, leave_bytes: int) -> None:
    """Somebody else takes all but so much of it."""
    found = os.statvfs(memory)
    assert found.f_blocks * found.f_frsize == 2 << 20
    (memory / "else").write_bytes(bytes(found.f_bavail * found.f_frsize - leave_bytes))


def test_who_finds_it_full_says_so_and_training_goes_on(tmp_path: Path, undisturbed: dict[int, StepFigures]) -> None:
    with small_memory(tmp_path, "b") as memory, make(tmp_path, SnapshotsSpec(interval_steps=2)) as w:
        fill(memory, leave_bytes=100_000)
        w.propose(SLOTS)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert {"on node b has room for 0 B" in text for text in w.notices} == {True}, w.notices
        assert {made.cause for made in w.snapshots.values()} == {NO_ROOM}
        assert not begun(w)
        assert len(w.records) == 1
        check(surviving(w), undisturbed)


@pytest.mark.parametrize("room_for", ["nothing", "its own part"])
def test_what_the_kernel_refuses_in_the_middle_costs_the_next_snapshot_not_the_last(
    tmp_path: Path, undisturbed: dict[int, StepFigures], room_for: str
) -> None:
    """Others took the memory since it was looked whether there is room: while a part is written, or copied to there."""
    options = {"room_bytes": PLENTY_BYTES}
    with small_memory(tmp_path, "b") as memory, make(tmp_path, SnapshotsSpec(interval="auto"), **options) as w:
        w.propose(SLOTS)
        last = last_of_all(w)
        (held,) = NodeMemory(memory, "job-1").held()
        fill(memory, leave_bytes=0 if room_for == "nothing" else held.size_bytes * 3 // 4)
        w.snapshot_every(dict.fromkeys(SLOTS, ALWAYS_S))
        w.until(lambda: all(w.snapshots[slot].error for slot in SLOTS))
        assert any("rank 1" in text and "No space left" in text for text in w.notices), w.notices
        assert complete(w) == {node: [last] for node in NODES}
        assert len(begun(w)) == 1, "nothing is left of what was begun"
        (memory / "else").unlink()  # else not even what is missing there of the last, its manifests, can be fetched
        w.lives[0].kill()
        went_back(w, last, undisturbed)
