"""Times between snapshots, and what becomes of a world that makes some."""

from __future__ import annotations

from pathlib import Path

from multiproc.world import ProcessWorld
from trainctl.checkpoint.memory.node_memory import NodeMemory

NEVER_S, ALWAYS_S = 1e9, 1e-9
"""Times between snapshots."""


def train_to_the_end(w: ProcessWorld) -> None:
    w.until(lambda: all(life.finished for life in w.members()))
    w.stop()


def completed(w: ProcessWorld, step: int) -> bool:
    """Whether every node completed a snapshot of ``step`` or later."""
    return all(
        any(held.snapshot.step >= step for held in NodeMemory(w.memory(node), "job-1").held()) for node in w.nodes
    )


def damage(pattern: str, *memories: Path) -> None:
    """Flips a bit of the last byte of each file; they are written by nobody then."""
    found = [path for memory in memories for path in memory.rglob(pattern)]
    assert len(found) >= len(memories)
    for path in found:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
