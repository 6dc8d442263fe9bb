"""``trainctl checkpoints verify``: reads a checkpoint where it lies. No torch.

Damage is told to the controller, which refuses the checkpoint; ``--accept`` takes that back when it is whole again. A
manifest that is missing or another one refuses nothing: its folder may not be mounted where the command runs.
"""

from __future__ import annotations

import uuid

from trainctl.checkpoint.kept.read_back import shortest
from trainctl.checkpoint.kept.verification import Verified
from trainctl.cli import exit_codes
from trainctl.cli.commands.checkpoints import ask, choose_any
from trainctl.cli.commands.operate import begin
from trainctl.cli.connection.client import connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.folders import marks
from trainctl.cli.folders.marks import Noted
from trainctl.cli.folders.places import is_path, or_folder
from trainctl.cli.folders.verified import data_of, fail, read, whole
from trainctl.cli.output import emit
from trainctl.cli.render.refused import RESTORE, refusals
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.protos.convert import message_to_record
from trainctl.protos.v1.job_pb2 import (
    AcceptCheckpointRequest,
    AcceptCheckpointResponse,
    Job,
    RefuseCheckpointRequest,
    RefusedCheckpoint,
)


def verify(context: Context) -> int:
    """Reads every file of a checkpoint; fails if one is not as it was saved, and names it."""
    if is_path(context.options.name):
        from trainctl.cli.commands.offline_verify import verify_in_folder

        return verify_in_folder(context)
    with or_folder(context.options.name), connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)
    message = choose_any(job, answer, context.options.step)
    ref = message_to_record(message, CheckpointRef)
    refused = refusals(answer).get(ref.uri)
    mark = marks.found(ref) if refused is None else ""
    found = _read(context, ref, refused)
    if found.damage:
        _fail(context, job, ref, found, refused)
    accepted = _accept(context, job, ref) if refused is not None and context.options.accept else None
    taken = marks.take(ref, mark)
    emit(
        context,
        {
            **data_of(ref, found, refused.reason if refused is not None else ""),
            "unmarked": taken.done,
            **({} if accepted is None else {"accepted": True, "listed": accepted.listed}),
        },
        table=lambda: [whole(ref, found), *taken.lines, *_about_refusal(context, job, ref, refused, accepted)],
        names=[ref.uri],
    )
    return exit_codes.OK


def _read(context: Context, ref: CheckpointRef, refused: RefusedCheckpoint | None) -> Verified:
    try:
        return read(context, ref)
    except DamagedCheckpointError as error:
        if refused is None:
            raise
        raise CheckpointError(f"the checkpoint of step {ref.step} stays refused: {error}", hint=RESTORE) from error


def _about_refusal(
    context: Context,
    job: Job,
    ref: CheckpointRef,
    refused: RefusedCheckpoint | None,
    accepted: AcceptCheckpointResponse | None,
) -> list[str]:
    name = job.spec.metadata.name
    if refused is None:
        return ["it is not refused: there is nothing to accept"] if context.options.accept else []
    if accepted is None:
        return [
            f"it was refused: {refused.reason}",
            f"to take that back: trainctl checkpoints verify {name} --step {ref.step} --accept",
        ]
    if accepted.listed:
        return [f"it is no longer refused: it is one of job {name} again"]
    return [
        f"it is no longer refused, but job {name} stays with what it went back to: what it trained since does not "
        "descend from this one",
        f"another job can begin with it: spec.checkpoint.resumeFrom: {ref.uri}",
    ]


def _accept(context: Context, job: Job, ref: CheckpointRef) -> AcceptCheckpointResponse:
    request_id = begin(context, "it was accepted")
    request = AcceptCheckpointRequest(name=job.uid, request_id=request_id, uri=ref.uri)
    with connect(context) as client:
        return client.call(client.stub.AcceptCheckpoint, request)


def _fail(context: Context, job: Job, ref: CheckpointRef, found: Verified, refused: RefusedCheckpoint | None) -> None:
    """Raises: CheckpointError: with all that is wrong; for machines the data is written first."""
    noted = _refuse(context, job, ref, found) if refused is None else Noted(done=True)
    fail(
        context,
        ref,
        found,
        noted,
        refused=refused.reason if refused is not None else "",
        hint="restore the files from a copy, or go on from another checkpoint: trainctl checkpoints list "
        + job.spec.metadata.name,
    )


def _refuse(context: Context, job: Job, ref: CheckpointRef, found: Verified) -> Noted:
    """Lets the controller refuse it; one that does not want to, or is too old for that, is no reason to say less."""
    if not found.certain:
        return marks.UNCERTAIN
    name = job.spec.metadata.name
    context.on_interrupt = (f"interrupted; whether it was refused shows: trainctl checkpoints list {name}",)
    request = RefuseCheckpointRequest(
        name=job.uid, request_id=str(uuid.uuid4()), uri=ref.uri, found=shortest(found.damage)
    )
    try:
        with connect(context) as client:
            answer = client.call(client.stub.RefuseCheckpoint, request)
    except TrainctlError as error:
        why = f"{error} ({error.hint})" if error.hint else str(error)
        return Noted(line=f"the controller could not be told, so that job {name} may go back to it: {why}")
    if answer.listed:
        return Noted(done=True, line=f"it is marked as damaged; job {name} has no other, so it stays in its list")
    return Noted(done=True, line=f"it is refused now: job {name} does not go back to it")
