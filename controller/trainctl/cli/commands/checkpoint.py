"""``trainctl checkpoints describe``: one checkpoint, read where it lies. Needs no torch."""

from __future__ import annotations

import time
from typing import Any

from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.cli import exit_codes
from trainctl.cli.commands.checkpoints import ask, choose_any
from trainctl.cli.connection.client import Client, connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.folders.manifest_facts import facts
from trainctl.cli.folders.places import is_path, or_folder
from trainctl.cli.output import emit
from trainctl.cli.render import checkpoint as render
from trainctl.cli.render.refused import RESTORE, data_of, refusals
from trainctl.core.errors import CheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.protos.convert import message_to_record
from trainctl.protos.v1.job_pb2 import Job, Load, RefusedCheckpoint, RollbackJobRequest


def describe(context: Context) -> int:
    """Shows what the manifest of a checkpoint says, and what it means to the job."""
    if is_path(context.options.name):
        from trainctl.cli.commands.offline import describe_in_folder

        return describe_in_folder(context)
    with or_folder(context.options.name), connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)
    message = choose_any(job, answer, context.options.step)
    with connect(context) as client:
        back_to = _rollback_target(client, job)
    ref = message_to_record(message, CheckpointRef)
    refused = refusals(answer)
    data = {
        **data_of(message, refused),
        **facts(_manifest(ref, refused.get(ref.uri))),
        "pinned": ref.uri in answer.pinned,
        "rollbackTarget": ref.uri == back_to,
        "loads": [_load(load) for load in job.status.loads if load.uri == ref.uri],
    }
    style, name = context.console.style(), job.spec.metadata.name
    emit(context, data, table=lambda: render.describe(data, job=name, now_s=time.time(), style=style), names=[ref.uri])
    return exit_codes.OK


def _manifest(ref: CheckpointRef, refused: RefusedCheckpoint | None) -> RootManifest:
    try:
        with storage_errors(f"reading the checkpoint {ref.uri}"):
            return read_root(open_storage(ref.uri), expected_sha256=ref.manifest_sha256)[0]
    except CheckpointError as error:
        if refused is None:
            raise
        raise CheckpointError(
            f"the checkpoint of step {ref.step} was refused: {refused.reason}\nits manifest cannot be shown: {error}",
            hint=RESTORE,
        ) from error


def _load(load: Load) -> dict[str, Any]:
    return {
        "generation": load.generation,
        "loadedS": load.loaded_s,
        "seconds": load.seconds,
        "ranks": load.ranks,
        "dataBytes": load.data_bytes,
        "movedBytes": load.moved_bytes,
        "healedReads": load.healed_reads,
        "bottleneck": load.bottleneck,
        "parts": [
            {
                "rank": part.rank,
                "dataBytes": part.data_bytes,
                "movedBytes": part.moved_bytes,
                "healedReads": part.healed_reads,
                "seconds": dict(part.seconds),
            }
            for part in load.parts
        ],
    }


def _rollback_target(client: Client, job: Job) -> str:
    """URI of the checkpoint that a roll-back without a step takes; empty if the job cannot go back now."""
    request = RollbackJobRequest(name=job.uid, validate_only=True)
    try:
        return client.call(client.stub.RollbackJob, request).checkpoint.uri
    except TrainctlError as error:
        if error.exit_code != exit_codes.PRECONDITION:
            raise
        return ""
