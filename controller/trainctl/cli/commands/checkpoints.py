"""``trainctl checkpoints list``, also spelled ``get checkpoints``; the export is in ``commands.export``."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.client import connect
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render import tables
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import ListCheckpointsRequest


def list_checkpoints(context: Context) -> int:
    """Lists the committed checkpoints of a job, the oldest first."""
    name = context.options.name
    with connect(context) as client:
        request = ListCheckpointsRequest(tenant=DEFAULT_TENANT, name=name)
        answer = client.call(client.stub.ListCheckpoints, request)
    if not answer.checkpoints and context.options.output == "table":
        context.console.say(f"job {name} has no checkpoint yet; they will be under {answer.uri}")
        return exit_codes.OK
    style = context.console.style()
    emit(
        context,
        plain(answer),
        table=lambda: tables.checkpoints(answer.checkpoints, style=style),
        names=[checkpoint.uri for checkpoint in answer.checkpoints],
    )
    return exit_codes.OK
