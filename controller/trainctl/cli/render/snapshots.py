"""The newest snapshot in the memory of a job's nodes, as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.cli.terminal.times import age
from trainctl.core.units import format_bytes, format_count
from trainctl.protos.v1.job_pb2 import JobStatus, SnapshotNode, SnapshotStatus

_NAMED = 4
"""Nodes that are named one by one."""


def line(status: JobStatus, now_s: float) -> str:
    """``step 1230 (12s ago), 4 steps back, each of 4 parts on 2 nodes: node-0 3.0 GiB``; empty if none are made."""
    if not status.HasField("snapshot"):
        return ""
    snapshot = status.snapshot
    stopped = f"no more in this generation: {snapshot.stopped}" if snapshot.stopped else ""
    if not snapshot.parts:
        return stopped or "none yet"
    ago = f" ({age(snapshot.complete_s, now_s)} ago)" if snapshot.complete_s else ""
    newest = f"step {snapshot.step}{ago}, {_back(snapshot)}, {_copies(snapshot)}: {_sizes(snapshot.nodes)}"
    return f"{newest}; {stopped}" if stopped else newest


def _back(snapshot: SnapshotStatus) -> str:
    return f"{format_count(snapshot.steps_back, 'step')} back" if snapshot.steps_back else "nothing since"


def _copies(snapshot: SnapshotStatus) -> str:
    """Whether a node may be lost without the snapshot."""
    if not snapshot.uncopied_parts:
        alike = snapshot.one_domain_parts
        lost = f", but {alike} of them in one failure domain only" if alike else ""
        return f"each of {format_count(snapshot.parts, 'part')} on 2 nodes{lost}"
    if len(snapshot.nodes) == 1:
        return f"{format_count(snapshot.parts, 'part')} on one node, lost with it"
    return f"{snapshot.uncopied_parts} of {format_count(snapshot.parts, 'part')} on one node only"


def _sizes(nodes: Sequence[SnapshotNode]) -> str:
    if len(nodes) <= _NAMED:
        return ", ".join(f"{one.node} {format_bytes(one.size_bytes)}" for one in nodes)
    most = max(nodes, key=lambda one: one.size_bytes)
    total = format_bytes(sum(one.size_bytes for one in nodes))
    return f"{total} on {format_count(len(nodes), 'node')}, at most {format_bytes(most.size_bytes)} ({most.node})"
