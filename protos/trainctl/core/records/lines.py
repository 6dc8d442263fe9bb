"""The lines of ``steps.jsonl``, the file of a job's records that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainctl.core.codec import to_wire
from trainctl.core.records.step import StepFigures


@dataclass(frozen=True, slots=True)
class StepLine:
    """``"event": "step"``: a committed step, with all fields of its figures.

    Attributes:
        figures: spread over the line.
        tokens_per_s: tokens of the step over its seconds.
    """

    figures: StepFigures
    tokens_per_s: float

    def to_json(self) -> dict[str, Any]:
        """The line."""
        return {"event": "step", **to_wire(self.figures), "tokensPerS": self.tokens_per_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackLine:
    """``"event": "rollback"``: the job went back. Lines above it with a greater step no longer count.

    Attributes:
        lineage: the new one; lines below belong to it.
        step: the run goes on after this step.
        generation: that goes on.
        wall_s: Unix time at which this was written.
    """

    lineage: int
    step: int
    generation: int
    wall_s: float

    def to_json(self) -> dict[str, Any]:
        """The line."""
        return {"event": "rollback", **to_wire(self)}
