"""``trainctl describe``."""

from __future__ import annotations

import time

from trainctl.cli import exit_codes
from trainctl.cli.commands.checkpoints import ask
from trainctl.cli.commands.nodes import describe_node
from trainctl.cli.connection.client import connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render.job import describe
from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted


def run(context: Context) -> int:
    """Shows all of a job, or of a node.

    Raises:
        UsageError: it is neither.
    """
    *kind, name = context.options.words
    if kind in (["node"], ["nodes"]):
        return describe_node(context, name)
    if kind not in ([], ["job"], ["jobs"]):
        raise UsageError(
            f"expected a job, or node and its name, found {quoted(' '.join(context.options.words))}",
            hint="for example trainctl describe first, trainctl describe node node-0",
        )
    with connect(context) as client:
        job = find_job(context, client, name)
        checkpoints = ask(client, job.uid).checkpoints
    style = context.console.style()
    emit(
        context,
        {**plain(job), "checkpoints": [plain(checkpoint) for checkpoint in checkpoints]},
        table=lambda: describe(job, checkpoints, now_s=time.time(), style=style),
        names=[job.spec.metadata.name],
    )
    return exit_codes.OK
