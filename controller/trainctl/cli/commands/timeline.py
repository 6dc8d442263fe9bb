"""``trainctl timeline``."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.client import connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render.recoveries import timeline


def run(context: Context) -> int:
    """Draws what each recovery of a job spent its time on."""
    with connect(context) as client:
        job = get_job(client, context.options.name)
    recoveries = job.status.recoveries
    if not recoveries and context.options.output == "table":
        context.console.say(f"job {job.spec.metadata.name} had no recovery so far")
        return exit_codes.OK
    style = context.console.style()
    emit(
        context,
        {"recoveries": [plain(recovery) for recovery in recoveries]},
        table=lambda: timeline(recoveries, started_s=job.create_time_s, style=style),
        names=[str(recovery.generation) for recovery in recoveries],
    )
    return exit_codes.OK
