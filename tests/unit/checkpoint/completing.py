"""Checkpoints that are complete, one call each."""

from __future__ import annotations

from pathlib import Path

from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, save

VALUES = full_values({"w": (6,)})


def completed(
    uri: Path, step: int, *, lineage: int = 1, parent: CheckpointRef | None = None, nonce: str = "n"
) -> CheckpointRef:
    return save(uri, at_step(VALUES, step), of=attempt(step, lineage=lineage, nonce=nonce), parent=parent)
