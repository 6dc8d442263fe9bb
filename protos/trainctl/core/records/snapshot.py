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
    """

    snapshot: SnapshotRef
    parts: int
    held: tuple[int, ...]
