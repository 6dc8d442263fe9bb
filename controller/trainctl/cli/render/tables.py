"""The lists: jobs, nodes, checkpoints, events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainctl.cli.render import figures
from trainctl.cli.style import Style, table
from trainctl.cli.times import age, clock
from trainctl.protos.v1.job_pb2 import Event, IslandStatus, Job, NodeStatus
from trainctl.protos.v1.records_pb2 import CheckpointRef


def jobs(found: Sequence[Job], *, now_s: float, style: Style) -> list[str]:
    """One line per job, the newest first."""
    rows = [
        (
            job.spec.metadata.name,
            style.state(job.status.phase),
            figures.steps(job.status),
            figures.loss(job.status),
            figures.rate(job.status),
            str(job.status.restarts),
            age(job.create_time_s, now_s),
        )
        for job in sorted(found, key=lambda job: -job.create_time_s)
    ]
    headers = ("NAME", "PHASE", "STEP", "LOSS", "RATE", "RESTARTS", "AGE")
    return table(headers, rows, style=style, right="STEP,LOSS,RATE,RESTARTS,AGE")


def nodes(found: Iterable[NodeStatus], *, style: Style) -> list[str]:
    """One line per node."""
    rows = [
        (
            node.node,
            style.state(node.state),
            f"{node.slots_used}/{node.slots}",
            str(node.pid or "-"),
            f"{node.last_heard_age_s:.1f}s",
            node.address or "-",
            node.version or "-",
        )
        for node in found
    ]
    headers = ("NODE", "STATE", "SLOTS", "PID", "HEARD", "ADDRESS", "VERSION")
    return table(headers, rows, style=style, right="SLOTS,PID,HEARD")


def workers(islands: Iterable[IslandStatus], *, style: Style) -> list[str]:
    """One line per worker slot, by rank; a slot outside the generation has no rank."""
    rows = []
    for island in islands:
        for worker in sorted(island.workers, key=lambda w: (w.global_rank < 0, w.global_rank, w.slot)):
            alive = worker.pid > 0
            rows.append(
                (
                    island.id,
                    str(worker.slot),
                    str(worker.global_rank) if worker.global_rank >= 0 and alive else "-",
                    worker.node or "-",
                    str(worker.pid) if alive else "-",
                    style.state(worker.state),
                    str(worker.step) if alive else "-",
                    worker.phase or "-",
                )
            )
    headers = ("ISLAND", "SLOT", "RANK", "NODE", "PID", "STATE", "STEP", "DOING")
    return table(headers, rows, style=style, right="SLOT,RANK,PID,STEP") if rows else []


def checkpoints(found: Iterable[CheckpointRef], *, style: Style) -> list[str]:
    """One line per committed checkpoint, the oldest first."""
    rows = [
        (str(c.step), str(c.lineage), clock(c.committed_s) if c.committed_s else "-", c.attempt, c.uri) for c in found
    ]
    return table(("STEP", "LINEAGE", "COMMITTED", "ATTEMPT", "URI"), rows, style=style, right="STEP,LINEAGE")


def event(item: Event, *, style: Style) -> str:
    """``12:03:04  worker.exited  worker 1 on node-0 ...``."""
    return (
        f"{style.paint(clock(item.time_s), 'dim')}  {style.paint(f'{item.type:<22}', _tone(item.type))}  {item.message}"
    )


def _tone(event_type: str) -> str:
    if event_type.endswith((".failed", ".lost", ".condemned", ".rejected", ".aborted")):
        return "red"
    if event_type.endswith((".finished", ".succeeded", ".committed", ".back", ".running")):
        return "green"
    return "yellow" if event_type.endswith((".exited", ".suspect", ".recovering", ".started")) else "cyan"
