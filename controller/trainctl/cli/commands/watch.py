"""``trainctl watch``, and what ``submit --watch`` and ``submit --wait`` do after the submission."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainctl.cli import exit_codes, phases
from trainctl.cli.connection.client import Client, connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.render.job import summary
from trainctl.cli.streams.positions import EventPosition
from trainctl.cli.streams.resume import StreamEndedError, resume
from trainctl.cli.streams.views import LiveView, PhaseView, PlainView, View
from trainctl.protos.v1.job_pb2 import Event, Job, ListEventsRequest, WatchJobRequest

_PAGE = 1000


def run(context: Context) -> int:
    """Looks on until the job ends."""
    with connect(context) as client:
        job = find_job(context, client, context.options.name)
    return watch(context, job.uid, label=job.spec.metadata.name)


def watch(context: Context, uid: str, *, label: str, only_phases: bool = False, until: str = "") -> int:
    """Shows a job until it has ended, over any number of controller restarts; returns what its end means.

    The controller has just answered, so that even a first failure to reach it is waited out.

    Args:
        context: where to show it.
        uid: the job's.
        label: its name, for people.
        only_phases: one line per phase instead of events and progress.
        until: a phase that is awaited, instead of the end; reaching it is a success.
    """
    context.on_interrupt = (f"detached: job {label} goes on", f"look on again with: trainctl watch {label}")
    view = _view(context, only_phases=only_phases)
    job = Job()
    try:
        position = EventPosition()
        for job, events in resume(
            context, lambda client: _updates(client, uid, position), say=view.note, was_there=True
        ):
            for event in events:
                view.event(event)
            view.job(job)
            if until and phases.reached(until, job.status.phase, events):
                break
    finally:
        view.close()
    there = bool(until) and not phases.has_ended(job.status.phase)
    emit(
        context,
        plain(job),
        table=lambda: [f"job {label} reached {until}"] if there else summary(job, style=context.console.style()),
        names=[label],
    )
    return exit_codes.OK if there or until == job.status.phase else phases.exit_code(job.status.phase)


def _view(context: Context, *, only_phases: bool) -> View:
    """What is shown on the way is data only where a person reads it; with ``-o json`` it goes to stderr."""
    console = context.console
    to_stdout = is_table(context)
    write = console.data if to_stdout else console.say
    stream = console.out if to_stdout else console.err
    if only_phases:
        return PhaseView(write, console.say)
    return LiveView(console, stream) if console.draws_again(stream) else PlainView(write, console.say)


def _updates(client: Client, name: str, position: EventPosition) -> Iterator[tuple[Job, Sequence[Event]]]:
    """States of the job with the events that were not shown yet, the missed ones first; ends when the job has."""
    missed = True
    for update in client.stream(client.stub.WatchJob, WatchJobRequest(name=name)):
        ended = phases.has_ended(update.job.status.phase)
        events = list(list_events(client, name, position)) if missed or ended else []
        missed = False
        yield update.job, [*events, *position.new(update.events)]
        if ended:
            return
    raise StreamEndedError("the controller ended the stream")


def list_events(client: Client, name: str, position: EventPosition) -> Iterator[Event]:
    """Events that were not shown yet, page by page; they count as shown from now on."""
    while True:
        request = ListEventsRequest(name=name, after_revision=position.ask_after, limit=_PAGE)
        fresh = position.new(client.call(client.stub.ListEvents, request).events)
        if not fresh:
            return
        yield from fresh
