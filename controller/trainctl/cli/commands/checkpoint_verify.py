"""``trainctl checkpoints verify``: reads a checkpoint where it lies; ``--accept`` takes a refusal back. No torch."""

from __future__ import annotations

from typing import Any

from trainctl.checkpoint.verification import Verified
from trainctl.checkpoint.verification import verify as read_all
from trainctl.cli import exit_codes
from trainctl.cli.client import connect, find_job
from trainctl.cli.commands.checkpoints import ask, choose_any
from trainctl.cli.commands.operate import begin
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table
from trainctl.cli.progress import Progress
from trainctl.cli.render.refused import RESTORE, refusals
from trainctl.core.errors import CheckpointError, DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.units import format_bytes, format_count
from trainctl.protos.convert import message_to_record
from trainctl.protos.v1.job_pb2 import AcceptCheckpointRequest, AcceptCheckpointResponse, Job, RefusedCheckpoint


def verify(context: Context) -> int:
    """Reads every file of a checkpoint; fails if one is not as it was saved, and names it."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)
        message = choose_any(job, answer, context.options.step)
    ref = message_to_record(message, CheckpointRef)
    refused = refusals(answer).get(ref.uri)
    found = _read(context, ref, refused)
    if found.damage:
        _fail(context, job, ref, found, refused)
    accepted = _accept(context, job, ref) if refused is not None and context.options.accept else None
    emit(
        context,
        {**_data(ref, found, refused), **({} if accepted is None else {"accepted": True, "listed": accepted.listed})},
        table=lambda: [_whole(ref, found), *_about_refusal(context, job, ref, refused, accepted)],
        names=[ref.uri],
    )
    return exit_codes.OK


def _read(context: Context, ref: CheckpointRef, refused: RefusedCheckpoint | None) -> Verified:
    context.on_interrupt = ("interrupted: nothing was changed",)
    context.console.say(f"reading {ref.uri}")
    try:
        with Progress(context.console, "verified") as progress:
            return read_all(ref, progress=progress.at)
    except DamagedCheckpointError as error:
        if refused is None:
            raise
        raise CheckpointError(f"the checkpoint of step {ref.step} stays refused: {error}", hint=RESTORE) from error


def _data(ref: CheckpointRef, found: Verified, refused: RefusedCheckpoint | None) -> dict[str, Any]:
    return {
        "step": ref.step,
        "uri": ref.uri,
        "files": found.files,
        "sizeBytes": found.size_bytes,
        "damage": list(found.damage),
        "healedReads": found.healed_reads,
        "refused": refused.reason if refused is not None else "",
    }


def _whole(ref: CheckpointRef, found: Verified) -> str:
    size = f"{format_count(found.files, 'file')}, {format_bytes(found.size_bytes)}"
    healed = f"; {format_count(found.healed_reads, 'read')} only right when repeated: see what changes bytes on the way"
    return f"the checkpoint of step {ref.step} is whole: {size}{healed if found.healed_reads else ''}"


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
    if not is_table(context):
        emit(context, _data(ref, found, refused), table=lambda: [], names=[ref.uri])
    stays = "; it stays refused" if refused is not None else ""
    raise CheckpointError(
        "\n".join([f"the checkpoint of step {ref.step} is damaged{stays}:", *(f"  {line}" for line in found.damage)]),
        hint="restore the files from a copy, or go on from another checkpoint: trainctl checkpoints list "
        + job.spec.metadata.name,
    )
