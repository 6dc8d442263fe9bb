"""Jobs that are a program of the user's own, of which trainctl knows no steps, figures or checkpoints."""

from __future__ import annotations

from trainctl.core.records.spec import TORCHRUN
from trainctl.protos.v1.job_pb2 import Job


def runs_command(job: Job) -> bool:
    """Whether the job keeps its state itself; see ``JobSpec.runs_command``."""
    spec = job.effective_spec.spec
    return bool(spec.command) and spec.launch.mode == TORCHRUN


def without_checkpoints(job: Job) -> str:
    """Why there are no checkpoints of such a job."""
    name = job.spec.metadata.name
    return f"job {name} runs a command, which keeps its state itself: trainctl saves no checkpoints of it"
