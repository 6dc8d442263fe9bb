"""What a job's phase means to somebody who waits for it."""

from __future__ import annotations

from trainctl.cli import exit_codes

_ENDS = {
    "SUCCEEDED": exit_codes.OK,
    "FAILED": exit_codes.JOB_FAILED,
    "REJECTED": exit_codes.JOB_FAILED,
    "CANCELLED": exit_codes.JOB_CANCELLED,
    "PREEMPTED": exit_codes.JOB_CANCELLED,
}


def has_ended(phase: str) -> bool:
    """Whether a job in this phase will never run again."""
    return phase.upper() in _ENDS


def exit_code(phase: str) -> int:
    """What a command that waited for the job exits with."""
    return _ENDS.get(phase.upper(), exit_codes.OK)
