"""The four state machines, one transition table each; docs' diagrams are made from the same tables (``mermaid``)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from trainctl.core.errors import InternalError


class UnknownTransitionError(InternalError):
    """A phase change that the table does not know: a bug of ours."""


class Machine(StrEnum):
    """Which of the tables."""

    JOB = "job"
    ATTEMPT = "attempt"
    WORKER_SLOT = "worker_slot"
    GENERATION = "generation"


class JobPhase(StrEnum):
    """Where a job is. ``SUCCEEDED``, ``FAILED`` and ``CANCELLED`` never change again."""

    QUEUED = "QUEUED"
    ADMITTED = "ADMITTED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    RESIZING = "RESIZING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RESTARTING = "RESTARTING"
    COMPLETING = "COMPLETING"
    CANCELLING = "CANCELLING"
    FAILING = "FAILING"
    SUCCEEDED = "SUCCEEDED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class AttemptPhase(StrEnum):
    """One stay of a job on its nodes, from placement to the end; recoveries in place do not start a new one."""

    CREATED = "CREATED"
    BOOTING = "BOOTING"
    RESTORING = "RESTORING"
    TRAINING = "TRAINING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


class SlotState(StrEnum):
    """What is in a worker slot. A new life is put in only when the slot is ``EMPTY``."""

    EMPTY = "EMPTY"
    STARTING = "STARTING"
    READY = "READY"
    ACTIVE = "ACTIVE"
    FINISHED = "FINISHED"
    CONDEMNED = "CONDEMNED"
    DRAINING = "DRAINING"


class GenerationPhase(StrEnum):
    """Life of one generation number of an island; a committed one is left by committing a later number."""

    PROPOSED = "PROPOSED"
    PREPARING = "PREPARING"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


_ENDINGS = (JobPhase.CANCELLING, JobPhase.FAILING)

_HALTS = (JobPhase.PAUSING, JobPhase.RESTARTING)

_JOB: Mapping[str, tuple[str, ...]] = {
    JobPhase.QUEUED: (JobPhase.ADMITTED, JobPhase.COMPLETING, JobPhase.PAUSING, *_ENDINGS),
    JobPhase.ADMITTED: (JobPhase.STARTING, JobPhase.QUEUED, JobPhase.COMPLETING, JobPhase.PAUSING, *_ENDINGS),
    JobPhase.STARTING: (JobPhase.RUNNING, JobPhase.COMPLETING, JobPhase.QUEUED, JobPhase.PAUSING, *_ENDINGS),
    JobPhase.RUNNING: (JobPhase.RECOVERING, JobPhase.RESIZING, JobPhase.COMPLETING, *_HALTS, *_ENDINGS),
    JobPhase.RECOVERING: (
        JobPhase.RUNNING,
        JobPhase.RESIZING,
        JobPhase.COMPLETING,
        JobPhase.QUEUED,
        *_HALTS,
        *_ENDINGS,
    ),
    JobPhase.RESIZING: (
        JobPhase.RUNNING,
        JobPhase.RECOVERING,
        JobPhase.COMPLETING,
        JobPhase.QUEUED,
        *_HALTS,
        *_ENDINGS,
    ),
    JobPhase.PAUSING: (JobPhase.PAUSED, JobPhase.RECOVERING, JobPhase.COMPLETING, *_ENDINGS),
    JobPhase.PAUSED: (JobPhase.QUEUED, *_ENDINGS),
    JobPhase.RESTARTING: (JobPhase.RECOVERING, JobPhase.COMPLETING, *_ENDINGS),
    JobPhase.COMPLETING: (JobPhase.SUCCEEDED, *_ENDINGS),
    JobPhase.CANCELLING: (JobPhase.CANCELLED,),
    JobPhase.FAILING: (JobPhase.FAILED, JobPhase.CANCELLING),
    JobPhase.SUCCEEDED: (),
    JobPhase.CANCELLED: (),
    JobPhase.FAILED: (),
}

_ATTEMPT_ENDS = (AttemptPhase.FAILED, AttemptPhase.CANCELLED, AttemptPhase.SUPERSEDED)

_ATTEMPT: Mapping[str, tuple[str, ...]] = {
    AttemptPhase.CREATED: (AttemptPhase.BOOTING, *_ATTEMPT_ENDS),
    AttemptPhase.BOOTING: (AttemptPhase.RESTORING, *_ATTEMPT_ENDS),
    AttemptPhase.RESTORING: (AttemptPhase.TRAINING, AttemptPhase.SUCCEEDED, *_ATTEMPT_ENDS),
    AttemptPhase.TRAINING: (AttemptPhase.SUCCEEDED, *_ATTEMPT_ENDS),
    AttemptPhase.SUCCEEDED: (),
    AttemptPhase.FAILED: (),
    AttemptPhase.CANCELLED: (),
    AttemptPhase.SUPERSEDED: (),
}

_LEAVING = (SlotState.CONDEMNED, SlotState.DRAINING, SlotState.EMPTY)

_WORKER_SLOT: Mapping[str, tuple[str, ...]] = {
    SlotState.EMPTY: (SlotState.STARTING,),
    SlotState.STARTING: (SlotState.READY, *_LEAVING),
    SlotState.READY: (SlotState.ACTIVE, *_LEAVING),
    SlotState.ACTIVE: (SlotState.FINISHED, *_LEAVING),
    SlotState.FINISHED: (SlotState.ACTIVE, *_LEAVING),
    SlotState.CONDEMNED: (SlotState.EMPTY,),
    SlotState.DRAINING: (SlotState.EMPTY, SlotState.CONDEMNED),
}

_GENERATION: Mapping[str, tuple[str, ...]] = {
    GenerationPhase.PROPOSED: (GenerationPhase.PREPARING,),
    GenerationPhase.PREPARING: (GenerationPhase.COMMITTED, GenerationPhase.ABORTED),
    GenerationPhase.COMMITTED: (),
    GenerationPhase.ABORTED: (),
}

TRANSITIONS: Mapping[Machine, Mapping[str, tuple[str, ...]]] = {
    Machine.JOB: _JOB,
    Machine.ATTEMPT: _ATTEMPT,
    Machine.WORKER_SLOT: _WORKER_SLOT,
    Machine.GENERATION: _GENERATION,
}

TERMINAL = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED})
STOPPING = frozenset({JobPhase.COMPLETING, JobPhase.CANCELLING, JobPhase.FAILING})
"""Phases in which every worker is on its way out."""

ALIVE = frozenset({SlotState.STARTING, SlotState.READY, SlotState.ACTIVE, SlotState.FINISHED})
"""Slot states whose worker may be, or become, a member of a generation."""

_S = TypeVar("_S", bound=StrEnum)


def advance(machine: Machine, current: _S, to: _S) -> _S:
    """The only way a phase changes: returns ``to`` if the table allows it.

    Raises:
        UnknownTransitionError: the table has no such arrow; names machine, both phases and the legal ones.
    """
    allowed = TRANSITIONS[machine][current]
    if to not in allowed:
        legal = ", ".join(allowed) or "none, it is terminal"
        raise UnknownTransitionError(
            f"{machine}: {current} -> {to} is not a transition (legal from {current}: {legal})"
        )
    return to


def mermaid(machine: Machine) -> str:
    """The table as a Mermaid state diagram, for the docs."""
    table = TRANSITIONS[machine]
    first = next(iter(table))
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for source, targets in table.items():
        lines += [f"    {source} --> {target}" for target in targets]
        if not targets:
            lines.append(f"    {source} --> [*]")
    return "\n".join(lines) + "\n"
