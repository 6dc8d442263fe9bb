"""The lists: jobs, nodes, checkpoints, events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainctl.cli.phases import has_ended
from trainctl.cli.render import figures, transfers
from trainctl.cli.render.node import work_state
from trainctl.cli.terminal.style import Style, table
from trainctl.cli.terminal.times import age, clock, rfc3339
from trainctl.protos.v1.job_pb2 import Event, Job, NodeStatus
from trainctl.protos.v1.records_pb2 import CheckpointRef


def jobs(found: Sequence[Job], *, now_s: float, style: Style, wide: bool = False) -> list[str]:
    """One line per job. Jobs of one name are told apart by their uid."""
    names = [job.spec.metadata.name for job in found]
    uids = wide or len(set(names)) < len(names)
    moving = any(job.status.transfers for job in found)
    rows = [
        (
            job.spec.metadata.name,
            *((job.uid,) if uids else ()),
            style.state(job.status.phase),
            figures.marked_steps(job.status, now_s),
            figures.marked_loss(job.status, now_s),
            figures.rate(job.status),
            str(job.status.recovery_count),
            age(job.create_time_s, now_s),
            *((transfers.cell(job.status.transfers),) if moving else ()),
            *(_wide_job(job) if wide else ()),
        )
        for job in found
    ]
    headers = ("NAME", *(("UID",) if uids else ()), "PHASE", "STEP", "LOSS", "RATE", "RECOVERIES", "AGE")
    storage = ("STORAGE",) if moving else ()
    more = ("WORKERS", "GENERATION", "REASON", "LABELS") if wide else ()
    return table(
        (*headers, *storage, *more), rows, style=style, right="STEP,LOSS,RATE,RECOVERIES,AGE,WORKERS,GENERATION"
    )


def _wide_job(job: Job) -> tuple[str, ...]:
    labels = job.spec.metadata.labels
    alive = sum(worker.pid > 0 for island in job.status.islands for worker in island.workers)
    return (
        str(alive),
        figures.generations(job.status),
        job.status.reason or "-",
        ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or "-",
    )


def nodes(found: Iterable[NodeStatus], *, style: Style, wide: bool = False) -> list[str]:
    """One line per node."""
    rows = [
        (
            node.node,
            style.state(node.state if node.state != "READY" else work_state(node) or node.state),
            f"{node.slots_used}/{node.slots}",
            str(node.pid or "-"),
            f"{node.last_heard_age_s:.1f}s",
            node.address or "-",
            node.version or "-",
            *((str(node.agent_incarnation), node.metrics_address or "-", node.failure_domain or "-") if wide else ()),
        )
        for node in found
    ]
    headers = ("NODE", "STATE", "SLOTS", "PID", "HEARD", "ADDRESS", "VERSION")
    more = ("INCARNATION", "METRICS", "DOMAIN") if wide else ()
    return table((*headers, *more), rows, style=style, right="SLOTS,PID,HEARD,INCARNATION")


def workers(job: Job, *, style: Style) -> list[str]:
    """One line per worker slot, by rank; a slot outside the generation has no rank.

    Of a job that has ended those who were there last, without what only a process has.
    """
    ended, moving = has_ended(job.status.phase), job.status.transfers
    rows: list[tuple[str, ...]] = []
    for island in job.status.islands:
        for worker in sorted(island.workers, key=lambda w: (w.global_rank < 0, w.global_rank, w.slot)):
            alive = worker.pid > 0
            rows.append(
                (
                    island.id,
                    str(worker.slot),
                    str(worker.global_rank) if worker.global_rank >= 0 and (alive or ended) else "-",
                    worker.node or "-",
                    style.state(worker.state),
                    figures.worker_step(worker, job.status),
                    *(() if ended else (str(worker.pid) if alive else "-", transfers.of_worker(worker, moving))),
                )
            )
    headers = ("ISLAND", "SLOT", "RANK", "NODE", "STATE", "STEP", *(() if ended else ("PID", "DOING")))
    return table(headers, rows, style=style, right="SLOT,RANK,STEP,PID") if rows else []


def checkpoints(found: Iterable[CheckpointRef], *, now_s: float, style: Style) -> list[str]:
    """One line per committed checkpoint, the oldest first."""
    rows = [(str(c.step), str(c.lineage), age(c.committed_s, now_s), c.attempt, c.uri) for c in found]
    headers = ("STEP", "LINEAGE", "AGE", "ATTEMPT", "URI")
    return table(headers, rows, style=style, right="STEP,LINEAGE,AGE")


def events(found: Sequence[Event], *, now_s: float, style: Style, wide: bool = False) -> list[str]:
    """One line per event, their times aligned."""
    width = max((len(_when(item, now_s, wide=wide)) for item in found), default=0)
    return [event(item, now_s=now_s, style=style, wide=wide, width=width) for item in found]


def event(item: Event, *, now_s: float, style: Style, wide: bool = False, width: int = 0) -> str:
    """``12:03:04  worker.exited  worker 1 on node-0 ...``: with the date where it is not today's.

    Args:
        item: the event.
        now_s: Unix seconds.
        style: paints.
        wide: the time as machines write it, and the event's facts behind it.
        width: characters that the time takes at least.
    """
    when = _when(item, now_s, wide=wide).rjust(width)
    facts = "".join(f"  {key}={item.fields[key]}" for key in sorted(item.fields)) if wide else ""
    type_ = style.paint(f"{item.type:<22}", _tone(item.type))
    return f"{style.paint(when, 'dim')}  {type_}  {item.message}{style.paint(facts, 'dim')}"


def _when(item: Event, now_s: float, *, wide: bool) -> str:
    return rfc3339(item.time_s) if wide else clock(item.time_s, now_s)


def _tone(event_type: str) -> str:
    if event_type.endswith((".failed", ".lost", ".condemned", ".rejected", ".aborted")):
        return "red"
    if event_type.endswith((".finished", ".succeeded", ".committed", ".back", ".running")):
        return "green"
    return "yellow" if event_type.endswith((".exited", ".suspect", ".recovering", ".started")) else "cyan"
