"""The task of one's own of docs/examples on a whole system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from e2e.local_system import LocalSystem
from trainctl.protos.v1 import job_pb2

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_task"


def ended(system: LocalSystem, name: str) -> job_pb2.Job:
    """The job once it ended, however it did."""
    return next(job for job in system.watch(name, 300) if job.status.phase in ("SUCCEEDED", "FAILED"))


def own(name: str, **train: Any) -> str:
    """The example's job file under another name, with other fields of ``spec.train``."""
    job = yaml.safe_load((EXAMPLE / "job.yaml").read_text())
    job["metadata"]["name"] = name
    job["spec"]["env"]["PYTHONPATH"] = str(EXAMPLE)
    job["spec"]["train"] |= train
    return yaml.safe_dump(job)
