"""Event types, and the draft of an event: what the shell writes in the same transaction as the change it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JOB_SUBMITTED = "job.submitted"
JOB_PHASE_PREFIX = "job."
"""Every phase change is an event ``job.<phase in small letters>`` with fields ``from`` and ``to``."""
JOB_WAITING = "job.waiting"
JOB_CANCEL_REQUESTED = "job.cancel_requested"
JOB_SCALED = "job.scaled"
JOB_PAUSE_REQUESTED = "job.pause_requested"
JOB_RESUME_REQUESTED = "job.resume_requested"
JOB_RESTART_REQUESTED = "job.restart_requested"
JOB_ROLLBACK_REQUESTED = "job.rollback_requested"
JOB_HALT_GIVEN_UP = "job.halt_given_up"
"""A pause or a restart was called off: the job goes on where it stood."""
JOB_DELETE_REQUESTED = "job.delete_requested"
WORKER_STARTING = "worker.starting"
WORKER_READY = "worker.ready"
WORKER_EXITED = "worker.exited"
WORKER_LOST = "worker.lost"
WORKER_CONDEMNED = "worker.condemned"
WORKER_FAILED = "worker.failed"
WORKER_NOTICE = "worker.notice"
AGENT_SUSPECT = "agent.suspect"
AGENT_BACK = "agent.back"
AGENT_LOST = "agent.lost"
GENERATION_PREPARING = "generation.preparing"
GENERATION_ABORTED = "generation.aborted"
GENERATION_COMMITTED = "generation.committed"
GENERATION_ENTERED = "generation.entered"
RECOVERY_STARTED = "recovery.started"
RECOVERY_DECIDED = "recovery.decided"
RECOVERY_FINISHED = "recovery.finished"
CHECKPOINT_COMMITTED = "checkpoint.committed"
CHECKPOINT_FAILED = "checkpoint.failed"
CHECKPOINT_REJECTED = "checkpoint.rejected"
CHECKPOINT_ACCEPTED = "checkpoint.accepted"
"""Somebody found a refused checkpoint whole, and took the refusal back."""
CHECKPOINT_READ_BACK = "checkpoint.read_back"
"""Every byte of a checkpoint was read and is what was saved, so that those before it may go."""
SNAPSHOT_REJECTED = "snapshot.rejected"
SNAPSHOT_REPAIRED = "snapshot.repaired"
"""A part was damaged in the memory of a node, and was taken from another node's."""
CHECKPOINT_LOADED = "checkpoint.loaded"
"""All ranks of a generation have the state of a checkpoint, or of a snapshot."""
CHECKPOINT_DELETE_REQUESTED = "checkpoint.delete_requested"
CHECKPOINT_DELETED = "checkpoint.deleted"
CHECKPOINT_PINNED = "checkpoint.pinned"
CHECKPOINT_UNPINNED = "checkpoint.unpinned"
CHECKPOINT_INTERVAL = "checkpoint.interval"
"""The time between two checkpoints was chosen, or chosen anew."""
SNAPSHOT_INTERVAL = "snapshot.interval"
"""The same of snapshots in the memory of the nodes."""
LEADER_CHANGED = "leader.changed"
"""Another controller leads, or the same one again: once a term, in the history of each job that had not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """One thing that happened, before it has a revision.

    Attributes:
        type: stable dotted name, one of the constants above.
        reason: stable CamelCase word for machines.
        message: one sentence for people, with numbers.
        fields: details as text.
    """

    type: str
    reason: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)
