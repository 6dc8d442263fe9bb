"""``trainctl get jobs|job|nodes``."""

from __future__ import annotations

import time
from collections.abc import Iterator

from trainctl.cli import exit_codes
from trainctl.cli.client import Client, connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render import tables
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import Job, ListJobsRequest, ListNodesRequest

_PAGE_SIZE = 200


def list_jobs(client: Client) -> Iterator[Job]:
    """All jobs, page by page."""
    token = ""
    while True:
        request = ListJobsRequest(tenant=DEFAULT_TENANT, page_size=_PAGE_SIZE, page_token=token)
        page = client.call(client.stub.ListJobs, request)
        yield from page.jobs
        token = page.next_page_token
        if not token:
            return


def jobs(context: Context) -> int:
    """Lists the jobs."""
    with connect(context) as client:
        found = list(list_jobs(client))
    style = context.console.style()
    if not found and context.options.output == "table":
        context.console.say("no jobs yet; submit one with: trainctl submit -f job.yaml")
        return exit_codes.OK
    emit(
        context,
        {"jobs": [plain(job) for job in found]},
        table=lambda: tables.jobs(found, now_s=time.time(), style=style),
        names=[job.spec.metadata.name for job in found],
    )
    return exit_codes.OK


def job(context: Context) -> int:
    """Shows one job in a line."""
    with connect(context) as client:
        found = get_job(client, context.options.name)
    style = context.console.style()
    emit(
        context,
        plain(found),
        table=lambda: tables.jobs([found], now_s=time.time(), style=style),
        names=[found.spec.metadata.name],
    )
    return exit_codes.OK


def nodes(context: Context) -> int:
    """Lists the nodes and their agents."""
    with connect(context) as client:
        found = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
    style = context.console.style()
    if not found and context.options.output == "table":
        context.console.say("no nodes: no agent has registered yet")
        return exit_codes.OK
    emit(
        context,
        {"nodes": [plain(node) for node in found]},
        table=lambda: tables.nodes(found, style=style),
        names=[node.node for node in found],
    )
    return exit_codes.OK
