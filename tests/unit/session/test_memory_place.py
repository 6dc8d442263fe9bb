"""Which snapshots a node keeps when the nodes of a job do not all complete the next one.

Without it a node could let go of the last snapshot that all nodes have, and the job fall back to a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.solo import SoloGroup
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.session import memory_place
from trainctl.parallel.session.memory_place import MemoryPlace
from unit.checkpoint.completing import completed
from unit.checkpoint.ranks import attempt

NODES = ["a", "a", "b", "c"]
"""Of each rank; the first rank of a node seals there."""


class Node:
    """The view of the first rank of node ``a``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def gathered(group: Group, value: Any, **_: object) -> list[Any]:
            assert value == NODES[group.rank]
            return list(NODES)

        monkeypatch.setattr(memory_place, "gather_json", gathered)
        self.memory = NodeMemory(folder, "job-a")
        self.told: list[SnapshotsMade] = []
        self.place = MemoryPlace(
            self.memory,
            node="a",
            group=SoloGroup(torch.device("cpu")),
            waiter=Waiter(aborted=lambda: False, touch=lambda: None, where=str, timeout_s=1.0),
            connect=lambda: pytest.fail("no part is sent here"),
            faults=FaultPlan(),
            notice=lambda text: None,
            told=self.told.append,
            generation=4,
        )
        self.place.prepare()

    def settled(self, step: int, *without: int) -> list[int]:
        """Completes the snapshot of ``step``, but on the nodes of the ranks ``without``. What this node has then."""
        ref = completed(Path(self.memory.uri), step)
        sealed: list[CheckpointRef | None] = [ref, None, ref, ref]
        for rank in without:
            sealed[rank] = None
        self.place.settle(attempt(step), sealed)
        return [held.snapshot.step for held in self.memory.held()]


def test_the_one_before_stays_until_every_node_has_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, monkeypatch)
    assert node.settled(5) == [5]
    assert node.settled(6) == [6]
    assert node.settled(7, 3) == [6], "node c has nothing newer"
    assert node.place.over
    assert [made.made for made in node.told] == [1, 2, 2]
    assert node.told[-1].error == "that of step 7 failed: another node did not complete it"


def test_what_an_earlier_generation_left_stays_until_then_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    completed(tmp_path / "job-a", 3)
    assert Node(tmp_path, monkeypatch).settled(5, 2) == [3]
    assert Node(tmp_path, monkeypatch).settled(6) == [6]


def test_who_did_not_complete_it_keeps_the_one_before_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, monkeypatch)
    assert node.settled(5) == [5]
    assert node.settled(6, 0) == [5]
    assert node.place.over
