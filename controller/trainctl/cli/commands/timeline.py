"""``trainctl timeline``."""

from __future__ import annotations

import time

from trainctl.cli import exit_codes
from trainctl.cli.client import connect, find_job
from trainctl.cli.commands.watch import list_events
from trainctl.cli.context import Context
from trainctl.cli.output import document, emit, is_table, plain
from trainctl.cli.positions import EventPosition
from trainctl.cli.render.chrome_trace import chrome_trace
from trainctl.cli.render.recoveries import timeline


def run(context: Context) -> int:
    """Draws what each recovery of a job spent its time on."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        if context.options.output == "chrome-trace":
            events = list_events(client, job.uid, EventPosition())
            trace = chrome_trace(job, list(events), now_s=time.time())
            context.console.data(document(trace, "json", ascii_only=context.console.ascii_only))
            return exit_codes.OK
    recoveries = job.status.recoveries
    if not recoveries and is_table(context):
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
