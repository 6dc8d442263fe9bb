"""The tables of ``trainctl top``: jobs with their newest event, or the workers of one job."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.cli.render import figures, transfers
from trainctl.cli.terminal.style import Style, table
from trainctl.cli.terminal.times import age, rough
from trainctl.core.units import format_bytes
from trainctl.protos.v1.job_pb2 import Job


def jobs(found: Sequence[Job], *, now_s: float, style: Style) -> list[str]:
    """One line per job."""
    moving = any(job.status.transfers for job in found)
    rows = [
        (
            job.spec.metadata.name,
            style.state(job.status.phase),
            figures.marked_steps(job.status, now_s),
            figures.marked_loss(job.status, now_s),
            figures.rate(job.status),
            rough(job.status.eta_s) if job.status.eta_s > 0 else "-",
            str(_alive(job)),
            *((transfers.cell(job.status.transfers),) if moving else ()),
            _last_event(job, now_s),
        )
        for job in found
    ]
    more = ("STORAGE",) if moving else ()
    headers = ("NAME", "PHASE", "STEP", "LOSS", "RATE", "ETA", "WORKERS", *more, "LAST EVENT")
    return table(headers, rows, style=style, right="STEP,LOSS,RATE,ETA,WORKERS")


def workers(job: Job, *, now_s: float, style: Style) -> list[str]:
    """One line per worker of a job, by rank."""
    found = [worker for island in job.status.islands for worker in island.workers]
    rows = [
        (
            str(worker.global_rank) if worker.global_rank >= 0 else "-",
            worker.node or "-",
            style.state(worker.state),
            transfers.of_worker(worker, job.status.transfers),
            figures.worker_step(worker, job.status),
            format_bytes(worker.rss_bytes) if worker.rss_bytes else "-",
            age(worker.started_s, now_s),
            str(worker.pid or "-"),
        )
        for worker in sorted(found, key=lambda w: (w.global_rank < 0, w.global_rank, w.slot))
    ]
    progress = figures.progress(job.status, phase=style.state(job.status.phase), now_s=now_s)
    head = f"{job.spec.metadata.name}  {progress}"
    headers = ("RANK", "NODE", "STATE", "DOING", "STEP", "RSS", "AGE", "PID")
    return [head, *table(headers, rows, style=style, right="RANK,STEP,RSS,AGE,PID")]


def _alive(job: Job) -> int:
    return sum(worker.pid > 0 for island in job.status.islands for worker in island.workers)


def _last_event(job: Job, now_s: float) -> str:
    event = job.last_event
    return f"{event.type} {age(event.time_s, now_s)} ago" if event.type else "-"
