"""``trainctl checkpoints describe|verify``: one checkpoint, read where it lies. Needs no torch."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from trainctl.checkpoint.attempts import storage_errors
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.verification import verify as read_all
from trainctl.cli import exit_codes
from trainctl.cli.client import Client, connect, find_job
from trainctl.cli.commands.checkpoints import ask, choose
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.progress import Progress
from trainctl.cli.render import checkpoint as render
from trainctl.core.errors import CheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.units import format_bytes, format_count
from trainctl.protos.convert import message_to_record
from trainctl.protos.v1.job_pb2 import Job, Load, RollbackJobRequest


def describe(context: Context) -> int:
    """Shows what the manifest of a checkpoint says, and what it means to the job."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)
        message = choose(job, answer.checkpoints, context.options.step)
        back_to = _rollback_target(client, job)
    ref = message_to_record(message, CheckpointRef)
    data = {
        **plain(message),
        **_facts(_manifest(ref)),
        "pinned": ref.uri in answer.pinned,
        "rollbackTarget": ref.uri == back_to,
        "loads": [_load(load) for load in job.status.loads if load.uri == ref.uri],
    }
    style, name = context.console.style(), job.spec.metadata.name
    emit(context, data, table=lambda: render.describe(data, job=name, now_s=time.time(), style=style), names=[ref.uri])
    return exit_codes.OK


def _manifest(ref: CheckpointRef) -> RootManifest:
    with storage_errors(f"reading the checkpoint {ref.uri}"):
        return read_root(open_storage(ref.uri), expected_sha256=ref.manifest_sha256)[0]


def _facts(root: RootManifest) -> dict[str, Any]:
    files = root.stored_files
    return {
        "job": root.job,
        "created": root.created,
        "epoch": root.epoch,
        "parent": asdict(root.parent) if root.parent is not None else None,
        "ancestors": list(root.ancestors),
        "layout": root.layout,
        "writers": len(root.parts),
        "tensors": root.tensors,
        "dataBytes": root.data_bytes,
        "sizeBytes": sum(file.size_bytes for file in files),
        "files": [{"path": file.path, "sizeBytes": file.size_bytes} for file in files],
        "parts": [
            {"rank": part.writer, "dataBytes": part.data_bytes, "seconds": dict(part.seconds)} for part in root.parts
        ],
    }


def _load(load: Load) -> dict[str, Any]:
    return {
        "generation": load.generation,
        "loadedS": load.loaded_s,
        "seconds": load.seconds,
        "ranks": load.ranks,
        "dataBytes": load.data_bytes,
        "movedBytes": load.moved_bytes,
        "bottleneck": load.bottleneck,
        "parts": [
            {
                "rank": part.rank,
                "dataBytes": part.data_bytes,
                "movedBytes": part.moved_bytes,
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


def verify(context: Context) -> int:
    """Reads every file of a checkpoint; fails if one is not as it was saved, and names it."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        message = choose(job, ask(client, job.uid).checkpoints, context.options.step)
    context.on_interrupt = ("interrupted: nothing was changed",)
    context.console.say(f"reading {message.uri}")
    with Progress(context.console, "verified") as progress:
        found = read_all(message_to_record(message, CheckpointRef), progress=progress.at)
    data = {
        "step": message.step,
        "uri": message.uri,
        "files": found.files,
        "sizeBytes": found.size_bytes,
        "damage": list(found.damage),
    }
    size = f"{format_count(found.files, 'file')}, {format_bytes(found.size_bytes)}"
    whole = f"the checkpoint of step {message.step} is whole: {size}"
    if not (found.damage and is_table(context)):
        emit(context, data, table=lambda: [whole], names=[message.uri])
    if found.damage:
        raise CheckpointError(
            "\n".join([f"the checkpoint of step {message.step} is damaged:", *(f"  {line}" for line in found.damage)]),
            hint="restore the files from a copy, or go on from another checkpoint: trainctl checkpoints list "
            + job.spec.metadata.name,
        )
    return exit_codes.OK
