"""What a job's phase means to somebody who waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainctl.cli import exit_codes
from trainctl.controller.domain.states import JobPhase
from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted
from trainctl.protos.v1.job_pb2 import Event

_ENDS: Mapping[str, int] = {
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


def parse_phase(flag: str, text: str) -> str:
    """The phase that ``text`` names, in whatever case.

    Raises:
        UsageError: there is no such phase.
    """
    known = [phase.value for phase in JobPhase]
    if text.upper() in known:
        return text.upper()
    raise UsageError(
        f"{flag}: expected one of {', '.join(known)}, found {quoted(text)}", hint=f"for example {flag}=RUNNING"
    )


def reached(awaited: str, phase: str, events: Iterable[Event]) -> bool:
    """Whether a job is in the awaited phase, or was between two looks at it."""
    return phase == awaited or any(event.fields.get("to") == awaited for event in events)
