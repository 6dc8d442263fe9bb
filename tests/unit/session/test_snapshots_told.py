"""What a worker tells of the snapshots that it completes on its node.

Without it the controller could count on a snapshot that is on no node.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.part import NO_ROOM
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotsMade
from trainctl.core.system.memory_folder import MEMORY_VARIABLE
from trainctl.parallel.bridge import Snapshotted, WorkerMessage, decode, encode
from unit.session.saving_runs import Run


class Listening(Run):
    """Keeps what the worker tells, and what its node's memory holds at that moment."""

    def __init__(self, folder: Path, *, snapshots: int) -> None:
        super().__init__(folder, steps=40, interval=0, snapshots=snapshots)
        self.heard = threading.Event()
        self.told: list[tuple[SnapshotsMade, tuple[SnapshotHeld, ...]]] = []
        plainly = self.control.send

        def send(message: WorkerMessage) -> None:
            if isinstance(message, Snapshotted):
                memory = self.session._context.memory
                self.told.append((message.snapshots, memory.held() if memory is not None else ()))
                self.heard.set()
            plainly(message)

        self.control.send = send  # type: ignore[method-assign]


def test_each_one_that_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, str(tmp_path / "memory"))
    run = Listening(tmp_path, snapshots=1)
    while not run.session.done:
        run.step()
        run.heard.wait(0.5)  # steps are much shorter than a snapshot, and would be over before the first one is
    assert [made.made for made, _ in run.told] == list(range(1, len(run.told) + 1))
    assert run.told
    for made, held in run.told:
        assert (made.generation, made.error, made.newest) == (1, "", held[-1])
        assert len(held) == 1, "the one before is gone by then"
        assert held[0].held == (0,)
        assert held[0].size_bytes > 0
        assert 0.0 < made.stall_s <= made.seconds
    assert decode(encode(Snapshotted(run.told[0][0]))) == Snapshotted(run.told[0][0])


def test_the_end_of_them_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, str(tmp_path / "memory"))
    monkeypatch.setattr(NodeMemory, "room_bytes", lambda self: 100)
    run = Listening(tmp_path, snapshots=5)
    run.to_the_end()
    ((made, held),) = run.told
    assert (made.made, made.newest, made.cause, held) == (0, None, NO_ROOM, ())
    assert made.error.startswith("that of step 5 failed: rank 0: ")
    assert "has room for 100 B" in made.error


def test_where_no_node_has_memory_it_is_said_once(tmp_path: Path) -> None:
    run = Listening(tmp_path, snapshots=5)
    reports = run.to_the_end()
    ((made, _),) = run.told
    assert (made.made, made.newest, made.cause) == (0, None, NO_ROOM)
    assert made.error.startswith("that of step 5 failed: no node of the job has memory for snapshots")
    (notice,) = run.control.notices
    assert notice == f"no more snapshots in this generation, since {made.error}"
    assert [report.step for report in reports] == [40]
