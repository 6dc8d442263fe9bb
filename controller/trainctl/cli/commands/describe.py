"""``trainctl describe``."""

from __future__ import annotations

import time

from trainctl.cli import exit_codes
from trainctl.cli.client import connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render.job import describe
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import ListCheckpointsRequest


def run(context: Context) -> int:
    """Shows all of a job."""
    with connect(context) as client:
        job = get_job(client, context.options.name)
        request = ListCheckpointsRequest(tenant=DEFAULT_TENANT, name=job.uid)
        checkpoints = client.call(client.stub.ListCheckpoints, request).checkpoints
    style = context.console.style()
    emit(
        context,
        {**plain(job), "checkpoints": [plain(checkpoint) for checkpoint in checkpoints]},
        table=lambda: describe(job, checkpoints, now_s=time.time(), style=style),
        names=[job.spec.metadata.name],
    )
    return exit_codes.OK
