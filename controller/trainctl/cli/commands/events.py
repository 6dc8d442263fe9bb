"""``trainctl events``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainctl.cli import exit_codes, phases
from trainctl.cli.client import Client, connect, get_job
from trainctl.cli.commands.watch import list_events
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain, stream_item
from trainctl.cli.positions import EventPosition
from trainctl.cli.render import tables
from trainctl.cli.resume import StreamEndedError, resume
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import Event, WatchEventsRequest


def run(context: Context) -> int:
    """Shows what happened to a job; with ``-w`` goes on until the job ends."""
    name = context.options.name
    if context.options.watch:
        return _watch(context, name)
    with connect(context) as client:
        events = list(list_events(client, name, EventPosition()))
    style = context.console.style()
    emit(
        context,
        {"events": [plain(event) for event in events]},
        table=lambda: [tables.event(event, style=style) for event in events],
        names=[event.type for event in events],
    )
    return exit_codes.OK


def _watch(context: Context, name: str) -> int:
    context.on_interrupt = (f"detached: job {name} goes on", f"look on again with: trainctl events {name} -w")
    show = _line(context)
    position = EventPosition()
    for event in resume(context, lambda client: _stream(client, name, position)):
        context.console.data(show(event))
    return exit_codes.OK


def _line(context: Context) -> Callable[[Event], str]:
    form, style = context.options.output, context.console.style()
    if form == "table":
        return lambda event: tables.event(event, style=style)
    if form == "name":
        return lambda event: event.type
    return lambda event: stream_item(plain(event), form)


def _stream(client: Client, name: str, position: EventPosition) -> Iterator[Event]:
    """Events that were not shown yet, until the job has ended."""
    request = WatchEventsRequest(tenant=DEFAULT_TENANT, name=name, after_revision=position.ask_after)
    for answer in client.stream(client.stub.WatchEvents, request):
        yield from position.new([answer.event])
    if not phases.has_ended(get_job(client, name).status.phase):
        raise StreamEndedError("the controller ended the stream")
    yield from list_events(client, name, position)
