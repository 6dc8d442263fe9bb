"""``trainctl timeline``."""

from __future__ import annotations

import time

from trainctl.cli import exit_codes
from trainctl.cli.commands.watch import list_events
from trainctl.cli.connection.client import connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.output import document, emit, is_table, plain
from trainctl.cli.render.chrome_trace import chrome_trace
from trainctl.cli.render.recoveries import timeline
from trainctl.cli.streams.positions import EventPosition
from trainctl.controller.domain.events import LEADER_CHANGED


def run(context: Context) -> int:
    """Draws what each recovery of a job spent its time on, and when another controller began to lead."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        events = list(list_events(client, job.uid, EventPosition()))
    if context.options.output == "chrome-trace":
        trace = chrome_trace(job, events, now_s=time.time())
        context.console.data(document(trace, "json", ascii_only=context.console.ascii_only))
        return exit_codes.OK
    recoveries = job.status.recoveries
    leaders = [event for event in events if event.type == LEADER_CHANGED]
    if not recoveries and is_table(context):
        context.console.say(f"job {job.spec.metadata.name} had no recovery so far")
        if not leaders:
            return exit_codes.OK
    style = context.console.style()
    emit(
        context,
        {
            "recoveries": [plain(recovery) for recovery in recoveries],
            "leaders": [plain(event) for event in leaders],
        },
        table=lambda: timeline(recoveries, started_s=job.create_time_s, style=style, leaders=leaders),
        names=[str(recovery.generation) for recovery in recoveries],
        rows="recoveries",
    )
    return exit_codes.OK
