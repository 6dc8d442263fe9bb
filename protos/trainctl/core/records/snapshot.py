"""Snapshots in the memory of nodes: what a worker finds on its node, and the one that a generation goes back to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SnapshotRef:
    """A consistent copy of a job's state that lies in the memory of its nodes, each of which has some parts of it.

    Attributes:
        lineage: chain of steps that it belongs to.
        step: last step applied to the state in it.
        attempt: unique per snapshot.
    """

    lineage: int
    step: int
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHeld:
    """What one node's memory holds of a snapshot that all its writers completed.

    Attributes:
        snapshot: which one.
        parts: how many there are.
        held: numbers of those that are here, ascending.
        size_bytes: of the files of those.
    """

    snapshot: SnapshotRef
    parts: int
    held: tuple[int, ...]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsMade:
    """What the worker that completes snapshots on its node tells of those of a generation; always the whole truth.

    Attributes:
        generation: whose ranks make them.
        made: how many all nodes completed.
        newest: what this node has of the newest of them; None before the first.
        age_s: seconds since that was complete.
        error: why no more are made in this generation; empty as long as they are.
        cause: of that, one word of ``part.CAUSES``, or ``part.NO_ROOM``; empty where another node knows it.
        seconds: the newest took so long, from the step boundary at which it was begun; 0: not told.
        stall_s: how long training waited for the newest, on the worker that waited longest.
        failure_domain: what its node fails together with; empty: with no other node.
    """

    generation: int
    made: int = 0
    newest: SnapshotHeld | None = None
    age_s: float = 0.0
    error: str = ""
    cause: str = ""
    seconds: float = 0.0
    stall_s: float = 0.0
    failure_domain: str = ""
