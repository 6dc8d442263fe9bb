"""A job's history in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open.

Source: Trace Event Format, "JSON Object Format": complete events (X), instants (i) and names (M); microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainctl.cli import phases
from trainctl.cli.render.recoveries import copied, ordered_phases, total_s
from trainctl.protos.v1.job_pb2 import Event, Job

_PROCESS = 1
_PHASES, _RECOVERIES, _EVENTS = 1, 2, 3
_ROWS: Mapping[int, str] = {_PHASES: "phases of the job", _RECOVERIES: "recoveries", _EVENTS: "events"}


def chrome_trace(job: Job, events: Sequence[Event], *, now_s: float) -> dict[str, Any]:
    """The whole document. Times count from the submission; what goes on still ends at ``now_s``."""
    begin_s = job.create_time_s
    end_s = job.status.end_time_s or now_s
    return {
        "traceEvents": [
            *_names(job.spec.metadata.name),
            *_phases(events, begin_s, end_s),
            *_recoveries(job, begin_s),
            *_instants(events, begin_s),
        ],
        "displayTimeUnit": "ms",
        "otherData": {"job": job.spec.metadata.name, "uid": job.uid},
    }


def _names(name: str) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": _PROCESS, "tid": 0, "args": {"name": f"job {name}"}}
    for row, title in _ROWS.items():
        yield {"ph": "M", "name": "thread_name", "pid": _PROCESS, "tid": row, "args": {"name": title}}


def _phases(events: Sequence[Event], begin_s: float, end_s: float) -> Iterator[dict[str, Any]]:
    """The job's phases, each from the event that names it to the next one."""
    changes = [(begin_s, "QUEUED"), *((event.time_s, event.fields["to"]) for event in events if event.fields.get("to"))]
    for (from_s, phase), (to_s, _) in zip(changes, [*changes[1:], (end_s, "")], strict=True):
        if not phases.has_ended(phase):
            yield _span(_PHASES, phase, "phase", from_s - begin_s, to_s - begin_s, {})


def _recoveries(job: Job, begin_s: float) -> Iterator[dict[str, Any]]:
    for recovery in job.status.recoveries:
        at_s = recovery.started_s - begin_s
        facts = {
            "fault": recovery.fault,
            "rung": recovery.rung,
            "why": recovery.reason,
            "copied": copied(recovery),
            "lostSteps": recovery.lost_steps,
        }
        parts = ordered_phases(recovery)
        length_s = max(total_s(recovery), sum(seconds for _, seconds in parts))
        name = f"generation {recovery.generation}: {recovery.rung or 'in progress'}"
        yield _span(_RECOVERIES, name, "recovery", at_s, at_s + length_s, facts)
        for part, seconds in parts:
            yield _span(_RECOVERIES, part.replace("_", " "), "recovery", at_s, at_s + seconds, {})
            at_s += seconds


def _instants(events: Sequence[Event], begin_s: float) -> Iterator[dict[str, Any]]:
    for event in events:
        yield {
            "ph": "i",
            "s": "t",
            "name": event.type,
            "cat": "event",
            "ts": _us(event.time_s - begin_s),
            "pid": _PROCESS,
            "tid": _EVENTS,
            "args": {"message": event.message, **event.fields},
        }


def _span(row: int, name: str, category: str, from_s: float, to_s: float, facts: dict[str, Any]) -> dict[str, Any]:
    start = _us(from_s)
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": start,
        "dur": max(_us(to_s) - start, 0),
        "pid": _PROCESS,
        "tid": row,
        "args": facts,
    }


def _us(seconds: float) -> int:
    return max(round(seconds * 1e6), 0)
