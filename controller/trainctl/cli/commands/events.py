"""``trainctl events``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from trainctl.cli import exit_codes, phases
from trainctl.cli.commands.watch import list_events
from trainctl.cli.connection.client import Client, connect, find_job, get_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain, stream_item
from trainctl.cli.render import tables
from trainctl.cli.streams.positions import EventPosition
from trainctl.cli.streams.resume import StreamEndedError, resume
from trainctl.cli.terminal.times import since
from trainctl.protos.v1.job_pb2 import Event, WatchEventsRequest


def run(context: Context) -> int:
    """Shows what happened to a job; with ``-w`` goes on until the job ends."""
    since_s = since(context.options.since)
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
        if not context.options.watch:
            found = list_events(client, job.uid, EventPosition())
            return _show(context, [event for event in found if event.time_s >= since_s])
    name = job.spec.metadata.name
    context.on_interrupt = (f"detached: job {name} goes on", f"look on again with: trainctl events {name} -w")
    show = _line(context)
    position = EventPosition()
    for event in resume(context, lambda client: _stream(client, job.uid, position), was_there=True):
        if event.time_s >= since_s:
            context.console.data(show(event))
    return exit_codes.OK


def _show(context: Context, events: Sequence[Event]) -> int:
    style = context.console.style()
    wide = context.options.output == "wide"
    emit(
        context,
        {"events": [plain(event) for event in events]},
        table=lambda: tables.events(events, now_s=time.time(), style=style, wide=wide),
        names=[event.type for event in events],
    )
    return exit_codes.OK


def _line(context: Context) -> Callable[[Event], str]:
    form, style, ascii_only = context.options.output, context.console.style(), context.console.ascii_only
    if is_table(context):
        return lambda event: tables.event(event, now_s=time.time(), style=style, wide=form == "wide")
    if form == "name":
        return lambda event: event.type
    return lambda event: stream_item(plain(event), form, ascii_only=ascii_only)


def _stream(client: Client, name: str, position: EventPosition) -> Iterator[Event]:
    """Events that were not shown yet, until the job has ended."""
    request = WatchEventsRequest(name=name, after_revision=position.ask_after)
    for answer in client.stream(client.stub.WatchEvents, request):
        yield from position.new([answer.event])
    if not phases.has_ended(get_job(client, name).status.phase):
        raise StreamEndedError("the controller ended the stream")
    yield from list_events(client, name, position)
