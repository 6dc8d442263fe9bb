"""One job: the whole description, and the summary at its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from trainctl.cli.render import figures, recoveries, snapshots, tables, transfers
from trainctl.cli.terminal.style import Style
from trainctl.cli.terminal.times import age, rfc3339, rough, span
from trainctl.core.records.part import storage_kind
from trainctl.core.units import format_bytes, format_count
from trainctl.protos.v1.job_pb2 import CheckpointInterval, Job, JobStatus, Load, Save
from trainctl.protos.v1.records_pb2 import CheckpointRef, WorkerError

_SHOWN_RECOVERIES = 5
_SHOWN_LOG_LINES = 20


def describe(job: Job, checkpoints: Sequence[CheckpointRef], *, now_s: float, style: Style) -> list[str]:
    """Everything there is to know about a job, in sections."""
    status = job.status
    shown = status.recoveries[-_SHOWN_RECOVERIES:]
    more = f" (the last {len(shown)} of {len(status.recoveries)})" if len(shown) < len(status.recoveries) else ""
    loads = {load.generation: load for load in status.loads}
    sections = [
        ("", _head(job, now_s=now_s, style=style)),
        ("Error", error(status.error) if status.HasField("error") else []),
        ("Conditions", _conditions(status, now_s=now_s)),
        ("Workers", tables.workers(job, style=style)),
        ("Goodput", figures.goodput_lines(status.goodput_s)),
        (
            f"Recoveries and planned changes{more}",
            [line for recovery in shown for line in recoveries.describe(recovery, load=loads.get(recovery.generation))],
        ),
        ("Saves", [_saved(save) for save in status.saves]),
        ("Loads", _other_loads(loads, {recovery.generation for recovery in shown})),
        ("Checkpoints", tables.checkpoints(checkpoints, now_s=now_s, style=style) if checkpoints else []),
    ]
    lines: list[str] = []
    for title, body in sections:
        if body:
            lines += [*(["", style.paint(f"{title}:", "bold")] if title else []), *_indent(body, 2 if title else 0)]
    return lines


def _other_loads(loads: Mapping[int, Load], told: Collection[int]) -> list[str]:
    """Those that were no part of a recovery that is told of, such as when a job begins from a checkpoint."""
    return [f"generation {g}: {recoveries.loaded(load)}" for g, load in sorted(loads.items()) if g not in told]


def _saved(save: Save) -> str:
    """``step 20 to s3, 12.0 GiB of 4 ranks in 3.21 s, of which training waited 0.02 s; longest write of rank 2``."""
    amount = f"{format_bytes(save.data_bytes)} of {format_count(save.ranks, 'rank')}"
    longest = f"; longest {save.bottleneck}" if save.bottleneck else ""
    took = f"{save.seconds:.2f} s, of which training waited {save.stall_s:.2f} s"
    return f"step {save.step} to {storage_kind(save.uri)}, {amount} in {took}{longest}"


def _indent(lines: Iterable[str], by: int) -> list[str]:
    return [f"{' ' * by}{line}".rstrip() for line in lines]


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    known = [(name, value) for name, value in pairs if value and value != "-"]
    width = max(len(name) for name, _ in known)
    return [f"{name:<{width}}  {value}" for name, value in known]


def _head(job: Job, *, now_s: float, style: Style) -> list[str]:
    status = job.status
    phase = style.state(status.phase) + (f" ({status.reason})" if status.reason else "")
    return _pairs(
        [
            ("Name", style.paint(job.spec.metadata.name, "bold")),
            ("Uid", job.uid),
            ("Phase", phase + (f": {status.message}" if status.message else "")),
            ("What to do", status.hint),
            ("Created", f"{rfc3339(job.create_time_s)} ({age(job.create_time_s, now_s)} ago)"),
            (
                "Ended",
                f"{rfc3339(status.end_time_s)} ({age(status.end_time_s, now_s)} ago)" if status.end_time_s else "",
            ),
            ("Step", figures.steps(status) + (f" in lineage {status.lineage}" if status.lineage else "")),
            *(
                (transfers.doing(t.kind).capitalize(), f"step {t.step}: {transfers.amount(t)}")
                for t in status.transfers
            ),
            ("Figures", _waiting(status, now_s)),
            ("Skipped steps", str(status.skipped_steps) if status.skipped_steps else ""),
            ("Loss", figures.loss(status)),
            ("Eval loss", figures.eval_loss(status)),
            ("Rate", figures.rate(status)),
            ("ETA", rough(status.eta_s) if status.eta_s > 0 else ""),
            ("Islands", ", ".join(f"{i.id} generation {i.generation} {i.generation_phase}" for i in status.islands)),
            ("Recoveries", _recoveries(status)),
            ("Saves", _interval(status, "checkpoint_interval")),
            ("Snapshots", _interval(status, "snapshot_interval")),
            ("Snapshot", snapshots.line(status, now_s)),
            ("Work folder", status.workdir),
            ("Records", status.records),
        ]
    )


def _waiting(status: JobStatus, now_s: float) -> str:
    old = figures.waiting(status, now_s)
    return f"{age(status.figures_as_of_s, now_s)} old: {old}" if old else ""


def _recoveries(status: JobStatus) -> str:
    """How many, and how many ends of workers were charged to the restart budgets."""
    charged = f" ({status.restarts} charged to recovery.maxRestarts)" if status.restarts else ""
    return f"{status.recovery_count}{charged}" if status.recovery_count or charged else ""


def _interval(status: JobStatus, field: Literal["checkpoint_interval", "snapshot_interval"]) -> str:
    """How often a job saves by time, and why."""
    chosen: CheckpointInterval = getattr(status, field)
    return f"every {span(chosen.interval_s)}: {chosen.reason}" if status.HasField(field) else ""


def _conditions(status: JobStatus, *, now_s: float) -> list[str]:
    return [
        f"{c.type} {c.status} for {age(c.since_s, now_s)}"
        + (f" ({c.reason})" if c.reason else "")
        + (f": {c.message}" if c.message else "")
        for c in status.conditions
    ]


def error(failure: WorkerError) -> list[str]:
    """A worker's exception: what, where, traceback and last lines printed."""
    where = f" at step {failure.step}" if failure.step else ""
    lines = [f"{failure.type}: {failure.message} ({failure.code}){where}"]
    lines += _indent(failure.traceback.rstrip().splitlines(), 2)
    if failure.log_tail:
        lines += ["last lines it printed:", *_indent(failure.log_tail[-_SHOWN_LOG_LINES:], 2)]
    return lines


def summary(job: Job, *, style: Style) -> list[str]:
    """What there is to say when a job has ended."""
    status = job.status
    took_s = status.wall_s or max(status.end_time_s - job.create_time_s, 0)
    name = job.spec.metadata.name
    lines = [f"job {style.paint(name, 'bold')} {style.state(status.phase)} after {span(took_s)}"]
    if status.message:
        lines[0] += f": {status.message}"
    average = f" at {figures.count(status.tokens / took_s)} tokens/s over all" if took_s > 0 and status.tokens else ""
    held_out = f", eval loss {figures.eval_loss(status)}" if status.HasField("eval_loss") else ""
    lines += _indent(
        _pairs(
            [
                ("what to do", status.hint),
                ("steps", figures.steps(status)),
                ("tokens", f"{figures.count(status.tokens)}{average}" if status.tokens else ""),
                ("skipped", f"{status.skipped_steps} of the steps" if status.skipped_steps else ""),
                ("loss", f"{figures.loss(status)}{held_out}" if status.HasField("loss") else ""),
                ("goodput", figures.goodput_sentence(status.goodput_s)),
                ("checkpoint", status.checkpoint.uri if status.HasField("checkpoint") else ""),
                ("recoveries", str(status.recovery_count or "none")),
            ]
        ),
        2,
    )
    for recovery in status.recoveries:
        lines += _indent(recoveries.describe(recovery), 4)
    if status.HasField("error"):
        lines += ["", *_indent(error(status.error), 2)]
    return lines
