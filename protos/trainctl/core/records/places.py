"""Where a job's records lie, and what they are called: those who write and those who read agree on it here."""

from __future__ import annotations

from trainctl.core.records.spec import ResultsSpec

STEPS = "steps"
"""Of ``steps.jsonl`` and its further parts."""
LOGS = "logs"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
DELIVERED = "delivered"
"""Folder in which each hook's newest step is written down."""
JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"


def records_uri(results: ResultsSpec, *, workdir: str, job_uid: str) -> str:
    """Folder or URI of a job's records; empty where it has no work folder and names no other one."""
    root = f"{results.uri.rstrip('/')}/{job_uid}" if results.uri else workdir
    return f"{root}/records" if root else ""
