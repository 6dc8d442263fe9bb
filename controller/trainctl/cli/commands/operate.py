"""``trainctl scale|pause|resume|restart|rollback``: each returns when the wish is written down, not when it is done."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import can_ask, confirm
from trainctl.cli.connection.client import Client, connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.job_file.job_kind import runs_command, without_checkpoints
from trainctl.cli.output import emit, is_table, plain
from trainctl.core.errors import PreconditionError, UsageError
from trainctl.core.units import format_count
from trainctl.protos.v1.job_pb2 import (
    Job,
    PauseJobRequest,
    RestartJobRequest,
    ResumeJobRequest,
    RollbackJobRequest,
    ScaleJobRequest,
)

_WOULD_LOSE = "STEPS_WOULD_BE_LOST"


def begin(context: Context, what: str) -> str:
    """Gives the request an id, which is shown with an error, and says what is not known after a Ctrl-C."""
    context.request_id = context.options.request_id or str(uuid.uuid4())
    context.on_interrupt = (f"interrupted; whether {what} shows: trainctl events {context.options.name}",)
    return context.request_id


def scale(context: Context) -> int:
    """Changes the elastic bounds of a job."""
    options = context.options
    if options.min is None and options.max is None and options.target is None:
        raise UsageError("nothing to change", hint=f"for example: trainctl scale {options.name} --max 4")
    request = _request(context, ScaleJobRequest, "it was scaled")
    for name in ("min", "max", "target"):
        if (value := getattr(options, name)) is not None:
            setattr(request, name, int32(f"--{name}", value))
    return _send(context, lambda client: client.call(client.stub.ScaleJob, request).job, _scaled)


def _scaled(job: Job) -> str:
    nodes = job.effective_spec.spec.nodes
    return f"is to run on {format_count(nodes.target, 'node')}, at least {nodes.min}, at most {nodes.max}"


def pause(context: Context) -> int:
    """Pauses a job."""
    request = _request(context, PauseJobRequest, "it is being paused")
    return _send(context, lambda client: client.call(client.stub.PauseJob, request).job, _pausing)


def _pausing(job: Job) -> str:
    if job.status.phase == "PAUSED":
        return "is PAUSED already"
    if runs_command(job):
        again = f"`trainctl resume {job.spec.metadata.name}` starts it again"
        return f"is {job.status.phase}: its command is told to end; {again}"
    return f"is {job.status.phase}: it saves a checkpoint and stops as soon as it trains"


def resume(context: Context) -> int:
    """Lets a paused job go on."""
    request = _request(context, ResumeJobRequest, "it goes on")
    return _send(context, lambda client: client.call(client.stub.ResumeJob, request).job, _resumed)


def _resumed(job: Job) -> str:
    return f"is {job.status.phase} and goes on when there is room" if job.status.phase == "QUEUED" else "goes on"


def restart(context: Context) -> int:
    """Gives a job new workers; asks before steps are lost."""
    request = _request(context, RestartJobRequest, "it is being restarted")
    request.allow_loss = context.options.yes

    def send(client: Client) -> Job:
        try:
            return client.call(client.stub.RestartJob, request).job
        except PreconditionError as error:
            if error.code != _WOULD_LOSE or not can_ask():
                raise
            context.console.say(str(error))
            if not confirm("restart it all the same?"):
                return Job()
        request.allow_loss = True
        request.request_id = context.request_id = str(uuid.uuid4())
        return client.call(client.stub.RestartJob, request).job

    return _send(context, send, _restarting)


def _restarting(job: Job) -> str:
    if runs_command(job):
        return f"is {job.status.phase}: its command is started again and goes on from what it saved itself"
    return f"is {job.status.phase}: all its workers get new processes"


def rollback(context: Context) -> int:
    """Goes back to an older checkpoint; asks first, since what came after it is given up."""
    options = context.options
    look = RollbackJobRequest(name=options.name, validate_only=True)
    if options.to_step is not None:
        look.to_step = int32("--to-step", options.to_step)

    def send(client: Client) -> Job:
        job = get_job(client, options.name)
        if runs_command(job):
            raise PreconditionError(without_checkpoints(job), hint=f"`trainctl restart {options.name}` starts it again")
        plan = client.call(client.stub.RollbackJob, look)
        lost = format_count(plan.lost_steps, "step")
        what = f"to step {plan.checkpoint.step} ({plan.checkpoint.uri}), giving up {lost}"
        if not options.yes and not confirm(f"roll job {options.name} back {what}?"):
            return Job()
        request = _request(context, RollbackJobRequest, "it goes back")
        request.to_step = plan.checkpoint.step
        answer = client.call(client.stub.RollbackJob, request)
        context.console.say(f"back {what}")
        return answer.job

    return _send(context, send, lambda job: f"is {job.status.phase} and goes back in a new lineage")


def _request(context: Context, kind: Callable[..., Any], what: str) -> Any:
    request_id = begin(context, what)
    return kind(name=context.options.name, request_id=request_id)


def _send(context: Context, send: Callable[[Client], Job], words: Callable[[Job], str]) -> int:
    """Sends a request and shows the job; one without a name was not sent, because the user said no."""
    with connect(context) as client:
        job = send(client)
    name = job.spec.metadata.name
    if not name:
        context.console.say("nothing was changed")
        return exit_codes.FAILURE
    emit(context, plain(job), table=lambda: [f"job {name} {words(job)}"], names=[name])
    if is_table(context):
        context.console.say(f"look on with: trainctl watch {name}")
    return exit_codes.OK


def int32(flag: str, value: int) -> int:
    """A number that fits the wire; what it may be, the controller says.

    Raises:
        UsageError: it does not.
    """
    if not -(2**31) <= value < 2**31:
        raise UsageError(f"{flag}: expected a whole number below {2**31}, found {value}", hint=f"for example {flag} 2")
    return value
