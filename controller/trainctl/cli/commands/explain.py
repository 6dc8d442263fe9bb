"""``trainctl explain``."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.protos.v1.job_pb2 import ExplainJobRequest


def run(context: Context) -> int:
    """Says why a job is where it is, with the evidence."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = client.call(client.stub.ExplainJob, ExplainJobRequest(name=job.uid))
    emit(context, plain(answer), table=lambda: answer.sentences, names=[job.spec.metadata.name])
    return exit_codes.OK
