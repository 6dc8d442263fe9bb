"""``trainctl explain``."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.client import connect
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import ExplainJobRequest


def run(context: Context) -> int:
    """Says why a job is where it is, with the evidence."""
    name = context.options.name
    with connect(context) as client:
        answer = client.call(client.stub.ExplainJob, ExplainJobRequest(tenant=DEFAULT_TENANT, name=name))
    emit(context, plain(answer), table=lambda: answer.sentences, names=[name])
    return exit_codes.OK
