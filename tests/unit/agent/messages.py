"""What a worker is told, and tells."""

from __future__ import annotations

import math

from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import Instruction, WorkerDesired


def desired(instruction: Instruction = Instruction.STANDBY, generation: int = 0) -> WorkerDesired:
    return WorkerDesired(
        job_uid="u",
        job_name="n",
        island="island-0",
        slot=1,
        incarnation=7,
        instruction=instruction,
        generation=generation,
    )


def figures(step: int) -> StepFigures:
    return StepFigures(
        step=step, generation=1, lineage=0, loss=math.nan, learning_rate=0.1, gradient_norm=1.0, tokens=8, cursor=4,
        sample_digest=2**63 + 1, step_s=0.1, vote_s=0.0, reduce_s=0.0, wall_s=1.0,
    )  # fmt: skip
