"""``trainctl delete``: returns when nothing of the job is left, or says why something is."""

from __future__ import annotations

import argparse
import time

from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import confirm, look
from trainctl.cli.commands.operate import begin
from trainctl.cli.connection.client import Client, connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.job_file.job_kind import runs_command
from trainctl.cli.output import emit
from trainctl.cli.phases import has_ended
from trainctl.core.errors import NotFoundError, UnavailableError
from trainctl.protos.v1.job_pb2 import DeleteJobRequest, Job

LOOK_EVERY_S = 0.2
_FAILED = "DeletionFailed"


class NotDeletedError(UnavailableError):
    """Something of the job cannot be removed; the controller goes on trying."""

    code = "NOT_DELETED"


def run(context: Context) -> int:
    """Deletes a job."""
    options = context.options
    if not options.yes and not confirm(_question(look(context), options)):
        context.console.say("nothing was deleted")
        return exit_codes.FAILURE
    request_id = begin(context, "it is being deleted")
    request = DeleteJobRequest(
        name=options.name,
        request_id=request_id,
        force=options.force,
        keep_checkpoints=options.keep_checkpoints,
    )
    with connect(context) as client:
        uid = client.call(client.stub.DeleteJob, request).uid
        context.on_interrupt = (f"interrupted: job {options.name} is being deleted all the same",)
        _wait_until_gone(client, uid)
    kept = "; its checkpoints are where they were" if options.keep_checkpoints else ""
    data = {"uid": uid, "deleted": True}
    emit(context, data, table=lambda: [f"job {options.name} is deleted{kept}"], names=[options.name])
    return exit_codes.OK


def _question(job: Job, options: argparse.Namespace) -> str:
    if runs_command(job):
        what = "its record, events, logs and work folder, with all that the command saved there"
        what += " outside of checkpoints/" if options.keep_checkpoints else ""
    else:
        what = "its record, events and logs" + ("" if options.keep_checkpoints else ", and all its checkpoints")
    first = "cancel and " if options.force and not has_ended(job.status.phase) else ""
    return f"{first}delete job {job.spec.metadata.name}: {what}?"


def _wait_until_gone(client: Client, uid: str) -> None:
    """Raises: NotDeletedError: something refused to go."""
    while True:
        try:
            job = get_job(client, uid)
        except NotFoundError:
            return
        check_refusal(job)
        time.sleep(LOOK_EVERY_S)


def check_refusal(job: Job) -> None:
    """Raises: NotDeletedError: the controller says that something of the job refused to go."""
    refused = next((c for c in job.status.conditions if c.type == _FAILED and c.status == "True"), None)
    if refused is not None:
        raise NotDeletedError(
            f"something of job {job.spec.metadata.name} cannot be removed: {refused.message}",
            hint="remove the cause: the controller tries again every few seconds, also after a restart",
        )
