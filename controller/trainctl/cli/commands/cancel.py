"""``trainctl cancel``."""

from __future__ import annotations

import sys
import uuid

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import connect, get_job
from trainctl.cli.connection.connecting import duration_option_s
from trainctl.cli.context import Context
from trainctl.cli.job_file.job_kind import runs_command
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.phases import has_ended
from trainctl.core.errors import UsageError
from trainctl.protos.v1.job_pb2 import CancelJobRequest, Job


def run(context: Context) -> int:
    """Asks the controller to stop a job; returns when that is recorded, not when it has ended."""
    options = context.options
    grace_s = duration_option_s("--grace", options.grace)
    if not options.yes and not _agreed(look(context)):
        context.console.say("nothing was cancelled")
        return exit_codes.FAILURE
    context.request_id = options.request_id or str(uuid.uuid4())
    context.on_interrupt = ("interrupted; whether the job is being cancelled shows: trainctl get job " + options.name,)
    request = CancelJobRequest(
        name=options.name,
        request_id=context.request_id,
        grace_s=grace_s,
        checkpoint=options.checkpoint,
    )
    with connect(context) as client:
        job = client.call(client.stub.CancelJob, request).job
    name = job.spec.metadata.name
    ended = has_ended(job.status.phase)
    how = " already" if ended else f", {_how(job, checkpoint=options.checkpoint, grace=options.grace)}"
    text = f"job {name} is {job.status.phase}{how}"
    emit(context, plain(job), table=lambda: [text], names=[name])
    if is_table(context) and not ended:
        context.console.say(f"see it end with: trainctl watch {name}")
    return exit_codes.OK


def _agreed(job: Job) -> bool:
    """Whether it shall be; of one that has ended the controller says what there is to say."""
    return has_ended(job.status.phase) or confirm(f"cancel job {job.spec.metadata.name}?")


def _how(job: Job, *, checkpoint: bool, grace: str) -> str:
    if runs_command(job):
        return f"its command is told to end and has {grace} to do so"
    return "after one more checkpoint" if checkpoint else "without a further checkpoint"


def look(context: Context) -> Job:
    """The job that a question is about: nobody is asked about one that does not exist.

    Raises:
        NotFoundError: there is none.
    """
    context.on_interrupt = ("interrupted: nothing was changed",)
    with connect(context) as client:
        return get_job(client, context.options.name)


def can_ask() -> bool:
    """Whether somebody sits at a terminal who can answer."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def confirm(question: str) -> bool:
    """Asks on a terminal.

    Raises:
        UsageError: there is none, so nobody can answer.
    """
    if not can_ask():
        raise UsageError(f"{question}: there is no terminal to ask on", hint="say so with -y")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except UnicodeDecodeError:
        return False  # whatever that was
