"""Event types, and the draft of an event: what the shell writes in the same transaction as the change it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JOB_SUBMITTED = "job.submitted"
"""A job was accepted."""
JOB_PHASE_PREFIX = "job."
"""Every phase change is an event ``job.<phase in small letters>`` with fields ``from`` and ``to``."""
JOB_WAITING = "job.waiting"
"""A job waits for something, and the message says for what: free slots, mostly."""
JOB_CANCEL_REQUESTED = "job.cancel_requested"
"""Somebody asked for the job to be stopped for good."""
JOB_SCALED = "job.scaled"
"""Somebody changed how many nodes the job may have."""
JOB_PAUSE_REQUESTED = "job.pause_requested"
"""Somebody asked for a pause: a checkpoint is saved, and the slots are given back."""
JOB_RESUME_REQUESTED = "job.resume_requested"
"""Somebody asked for a paused job to go on, or took a pause back."""
JOB_RESTART_REQUESTED = "job.restart_requested"
"""Somebody asked for new worker processes."""
JOB_ROLLBACK_REQUESTED = "job.rollback_requested"
"""Somebody asked for the job to go on from an older checkpoint; steps after it are given up."""
JOB_HALT_GIVEN_UP = "job.halt_given_up"
"""A pause or a restart was called off, because what it waits for could not be saved; the job goes on."""
JOB_DELETE_REQUESTED = "job.delete_requested"
"""Somebody asked for the job and its files to be removed when it has ended."""
WORKER_STARTING = "worker.starting"
"""A worker was given a slot on a node, whose agent is told to start it."""
WORKER_READY = "worker.ready"
"""A worker has built its model and waits for a generation to begin."""
WORKER_EXITED = "worker.exited"
"""The process of a worker has ended; reason ``Unexpected`` begins a recovery."""
WORKER_LOST = "worker.lost"
"""A worker is lost because its agent is."""
WORKER_CONDEMNED = "worker.condemned"
"""A worker is alive but does not do its part (frozen, never ready): it is killed, then replaced."""
WORKER_FAILED = "worker.failed"
"""A worker ended with an error of its own: code, message, traceback and last lines."""
WORKER_NOTICE = "worker.notice"
"""A worker says something about its job that a person should read; training goes on."""
AGENT_SUSPECT = "agent.suspect"
"""An agent is silent, but not yet for as long as a lost one."""
AGENT_BACK = "agent.back"
"""A silent agent is heard again; nothing was changed."""
AGENT_LOST = "agent.lost"
"""An agent ended, or was silent too long: all its workers are lost with it."""
GENERATION_PREPARING = "generation.preparing"
"""A new set of members was proposed; survivors stop and report what they hold."""
GENERATION_ABORTED = "generation.aborted"
"""A proposed generation was given up before it began; the next one follows."""
GENERATION_COMMITTED = "generation.committed"
"""A generation is decided: its members, the step to go on after, and where the state comes from."""
GENERATION_ENTERED = "generation.entered"
"""All members of a generation train."""
RECOVERY_STARTED = "recovery.started"
"""Members were lost: what happened, and how many are left."""
RECOVERY_DECIDED = "recovery.decided"
"""The way back that was chosen, with the predicted cost of each."""
RECOVERY_FINISHED = "recovery.finished"
"""The first new step after a recovery is committed; with the seconds of each of its phases."""
CHECKPOINT_COMMITTED = "checkpoint.committed"
"""A checkpoint is complete, and the one to go on from."""
CHECKPOINT_FAILED = "checkpoint.failed"
"""A save failed; training goes on."""
CHECKPOINT_REJECTED = "checkpoint.rejected"
"""A checkpoint is refused: it was found damaged, or it belongs to what was given up."""
CHECKPOINT_ACCEPTED = "checkpoint.accepted"
"""Somebody found a refused checkpoint whole, and took the refusal back."""
CHECKPOINT_READ_BACK = "checkpoint.read_back"
"""Every byte of a checkpoint was read and is what was saved, so that those before it may go."""
SNAPSHOT_REJECTED = "snapshot.rejected"
"""A snapshot could not be loaded: an older one or the newest checkpoint is taken."""
SNAPSHOT_REPAIRED = "snapshot.repaired"
"""A part of a snapshot was damaged on one node, and was taken from another one."""
CHECKPOINT_LOADED = "checkpoint.loaded"
"""All ranks of a generation have the state of a checkpoint, or of a snapshot."""
CHECKPOINT_DELETE_REQUESTED = "checkpoint.delete_requested"
"""Somebody asked for one checkpoint to be removed."""
CHECKPOINT_DELETED = "checkpoint.deleted"
"""A checkpoint that somebody asked to remove is gone."""
CHECKPOINT_PINNED = "checkpoint.pinned"
"""Somebody wants a checkpoint kept, however old."""
CHECKPOINT_UNPINNED = "checkpoint.unpinned"
"""A checkpoint is no longer pinned: retention may remove it."""
CHECKPOINT_INTERVAL = "checkpoint.interval"
"""The time between two checkpoints was chosen, or chosen anew."""
SNAPSHOT_INTERVAL = "snapshot.interval"
"""The time between two snapshots was chosen, or chosen anew."""
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
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
