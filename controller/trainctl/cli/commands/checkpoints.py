"""``trainctl checkpoints list``, also spelled ``get checkpoints``; the export is in ``commands.export``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainctl.cli import exit_codes
from trainctl.cli.changes import watch_rows
from trainctl.cli.client import Client, connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.job_kind import runs_command, without_checkpoints
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.phases import has_ended
from trainctl.cli.render import tables
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import Job, ListCheckpointsRequest, ListCheckpointsResponse
from trainctl.protos.v1.records_pb2 import CheckpointRef


def list_checkpoints(context: Context) -> int:
    """Lists the committed checkpoints of a job, the oldest first."""
    style = context.console.style()
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)

    def table(found: Sequence[CheckpointRef]) -> list[str]:
        return tables.checkpoints(found, now_s=time.time(), style=style)

    if context.options.watch:
        watch_rows(
            context,
            lambda client: ask(client, job.uid).checkpoints,
            key=lambda checkpoint: checkpoint.uri,
            state=lambda checkpoint: checkpoint.committed_s,
            data=plain,
            lines=table,
            name=lambda checkpoint: checkpoint.uri,
        )
        return exit_codes.OK
    if not answer.checkpoints and is_table(context):
        context.console.say(_none(job, answer.uri))
        return exit_codes.OK
    emit(
        context,
        plain(answer),
        table=lambda: table(answer.checkpoints),
        names=[checkpoint.uri for checkpoint in answer.checkpoints],
    )
    for uri in answer.missing:
        context.console.say(f"warning: it is not there any more: {uri}")
    return exit_codes.OK


def _none(job: Job, uri: str) -> str:
    if runs_command(job):
        return f"{without_checkpoints(job)}; the folder that it can save to is {job.status.workdir}"
    if has_ended(job.status.phase):
        return f"job {job.spec.metadata.name} ended without a checkpoint"
    return f"job {job.spec.metadata.name} has no checkpoint yet; they will be under {uri}"


def ask(client: Client, name: str) -> ListCheckpointsResponse:
    """The checkpoints of the job of this name or uid, and where they lie."""
    return client.call(client.stub.ListCheckpoints, ListCheckpointsRequest(tenant=DEFAULT_TENANT, name=name))
