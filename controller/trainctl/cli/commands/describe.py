"""``trainctl describe``."""

from __future__ import annotations

import time

from trainctl.cli import exit_codes
from trainctl.cli.client import connect, find_job
from trainctl.cli.commands.checkpoints import ask
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render.job import describe


def run(context: Context) -> int:
    """Shows all of a job."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        checkpoints = ask(client, job.uid).checkpoints
    style = context.console.style()
    emit(
        context,
        {**plain(job), "checkpoints": [plain(checkpoint) for checkpoint in checkpoints]},
        table=lambda: describe(job, checkpoints, now_s=time.time(), style=style),
        names=[job.spec.metadata.name],
    )
    return exit_codes.OK
