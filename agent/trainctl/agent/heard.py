"""What a worker says, as it can be told on.

A worker runs somebody's code, and its agent has one stream to the controller for the workers of all jobs. What does not
fit onto it would leave the controller without word of any of them, and so is refused, or cut, where it comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainctl.core.codec import WireError
from trainctl.core.records.worker import CheckpointReport, RecoveryReport, WorkerError
from trainctl.parallel import bridge
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import records_pb2

MAX_OBSERVED_BYTES = 64 * 1024
"""Of one thing that goes into an observation, which holds those of all workers."""
MAX_REPORT_BYTES = 2 * 1024 * 1024
"""Of a report, which is a message of its own; a controller takes 4 MiB."""
_NOTICE = 1000
_WORD = 200
_TEXT = 8 * 1024
_LINE = 1000


def fitting(message: bridge.Message, job_uid: str) -> bridge.WorkerMessage:
    """The message with its texts cut to what fits into an observation.

    Args:
        message: that a worker sent.
        job_uid: the job whose worker it is.

    Raises:
        WireError: the wire does not take it, or it is about another job.
    """
    match message:
        case bridge.Instruct():
            raise WireError("bridge: expected a worker's message, found an instruction")
        case bridge.Noticed(text):
            message = bridge.Noticed(text[:_NOTICE])
        case bridge.Failed(error):
            message = bridge.Failed(cut(error))
        case _:
            pass
    _check(message, job_uid)
    return message


def cut(error: WorkerError) -> WorkerError:
    """The error with texts that are not endless; of the traceback the end stays, which says most."""
    return replace(
        error,
        type=error.type[:_WORD],
        message=error.message[:_TEXT],
        traceback=error.traceback[-_TEXT:],
        code=error.code[:_WORD],
        log_tail=cut_lines(error.log_tail),
        hint=error.hint[:_LINE],
        checkpoint=error.checkpoint[:_LINE],
    )


def cut_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Last lines that a worker printed, none of them endless."""
    return tuple(line[:_LINE] for line in lines)


def _check(message: bridge.WorkerMessage, job_uid: str) -> None:
    match message:
        case bridge.Figures(figures):
            for item in figures:
                record_to_message(item, records_pb2.StepFigures)
        case bridge.Checkpointed(report):
            _check_report(report, records_pb2.CheckpointReport, job_uid)
        case bridge.Recovered(recovery):
            _check_report(recovery, records_pb2.RecoveryReport, job_uid)
        case _:
            _check_size(_observed(message), records_pb2.WorkerObserved, MAX_OBSERVED_BYTES)


def _observed(message: bridge.WorkerMessage) -> dict[str, Any]:
    """What of a ``WorkerObserved`` the message fills."""
    match message:
        case bridge.Ready(steps):
            return {"steps": steps}
        case bridge.Running(generation):
            return {"generation": generation}
        case bridge.Reported(report):
            return {"report": report}
        case bridge.Noticed(text):
            return {"notices": (text,)}
        case bridge.Snapshotted(snapshots):
            return {"snapshots": snapshots}
        case bridge.Failed(error):
            return {"error": error}
        case _:
            return {}


def _check_report(report: CheckpointReport | RecoveryReport, message_type: Any, job_uid: str) -> None:
    if report.job_uid != job_uid:
        raise WireError(f"bridge: expected a report about job {job_uid!r}, found one about {report.job_uid[:40]!r}")
    _check_size(report, message_type, MAX_REPORT_BYTES)


def _check_size(record: Any, message_type: Any, limit_bytes: int) -> None:
    size_bytes = record_to_message(record, message_type).ByteSize()
    if size_bytes > limit_bytes:
        raise WireError(f"bridge: expected at most {limit_bytes} bytes, found {size_bytes}")
