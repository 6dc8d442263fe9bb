"""``trainctl checkpoints list``, also spelled ``get checkpoints``; what is done with one is in other modules."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainctl.cli import exit_codes
from trainctl.cli.commands.watch import list_events
from trainctl.cli.connection.client import Client, connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.folders.places import is_path, or_folder
from trainctl.cli.job_file.job_kind import runs_command, without_checkpoints
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.phases import has_ended
from trainctl.cli.render import refused as render
from trainctl.cli.streams.changes import watch_rows
from trainctl.cli.streams.positions import EventPosition
from trainctl.core.errors import NotFoundError
from trainctl.protos.v1.job_pb2 import Job, ListCheckpointsRequest, ListCheckpointsResponse
from trainctl.protos.v1.records_pb2 import CheckpointRef

_REMOVALS = frozenset({"checkpoint.delete_requested", "checkpoint.deleted"})


def list_checkpoints(context: Context) -> int:
    """Lists the committed checkpoints of a job, the oldest first, and those that were refused as damaged."""
    if is_path(context.options.name):
        from trainctl.cli.commands.offline import list_folder

        return list_folder(context)
    with or_folder(context.options.name), connect(context) as client:
        job = find_job(context, client, context.options.name)
        answer = ask(client, job.uid)
        removed = _removed(client, job) if not answer.checkpoints and has_ended(job.status.phase) else ""
    if context.options.watch:
        _watch(context, job)
        return exit_codes.OK
    if not answer.checkpoints and not answer.refused and is_table(context):
        context.console.say(_none(job, answer.uri, removed))
        return exit_codes.OK
    refused = render.refusals(answer)
    data = plain(answer)
    data["checkpoints"] = [render.data_of(ref, refused) for ref in answer.checkpoints]
    data["refused"] = [render.data_of(one.ref, refused) for one in answer.refused]
    emit(
        context,
        data,
        table=lambda: _table(context, render.in_order(answer), answer),
        names=[checkpoint.uri for checkpoint in answer.checkpoints],
        rows="checkpoints",
    )
    for uri in (uri for uri in answer.missing if uri not in refused):
        context.console.say(f"warning: it is not there any more: {uri}")
    return exit_codes.OK


def _watch(context: Context, job: Job) -> None:
    newest = ListCheckpointsResponse()

    def look(client: Client) -> Sequence[CheckpointRef]:
        newest.CopyFrom(ask(client, job.uid))
        return render.in_order(newest)

    watch_rows(
        context,
        look,
        key=lambda ref: ref.uri,
        state=lambda ref: (ref.committed_s, ref.uri in newest.pinned, ref.uri in render.refusals(newest)),
        data=lambda ref: render.data_of(ref, render.refusals(newest)),
        lines=lambda found: _table(context, found, newest),
        name=lambda ref: ref.uri,
    )


def _table(context: Context, found: Sequence[CheckpointRef], answer: ListCheckpointsResponse) -> list[str]:
    refused, style = render.refusals(answer), context.console.style()
    return render.lines(
        found, refused=refused, pinned=set(answer.pinned), missing=answer.missing, now_s=time.time(), style=style
    )


def _removed(client: Client, job: Job) -> str:
    """Which checkpoint of the job somebody removed last; empty if nobody did."""
    events = list_events(client, job.uid, EventPosition())
    return "".join([event.message for event in events if event.type in _REMOVALS][-1:])


def _none(job: Job, uri: str, removed: str) -> str:
    if runs_command(job):
        return f"{without_checkpoints(job)}; the folder that it can save to is {job.status.workdir}"
    if removed:
        return f"job {job.spec.metadata.name} has no checkpoint left: {removed}"
    if has_ended(job.status.phase):
        return f"job {job.spec.metadata.name} ended without a checkpoint"
    return f"job {job.spec.metadata.name} has no checkpoint yet; they will be under {uri}"


def choose(job: Job, found: Sequence[CheckpointRef], step: int | None) -> CheckpointRef:
    """The checkpoint of a step; None: the newest.

    Raises:
        NotFoundError: there is none; names those that there are.
    """
    name = job.spec.metadata.name
    if runs_command(job):
        raise NotFoundError(without_checkpoints(job), hint=f"the folder that it can save to is {job.status.workdir}")
    chosen = [checkpoint for checkpoint in found if step is None or checkpoint.step == step]
    if not chosen:
        steps = ", ".join(str(checkpoint.step) for checkpoint in found) or "none yet"
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}; it has {steps}"
        raise NotFoundError(f"job {name} has {wanted}", hint=f"trainctl checkpoints list {name}")
    return chosen[-1]


def choose_any(job: Job, answer: ListCheckpointsResponse, step: int | None) -> CheckpointRef:
    """The same; where no committed checkpoint is of the step, a refused one that is.

    Raises:
        NotFoundError: there is neither.
    """
    refused = [one.ref for one in answer.refused if step is not None and one.ref.step == step]
    if any(ref.step == step for ref in answer.checkpoints):
        return choose(job, answer.checkpoints, step)
    return choose(job, refused or answer.checkpoints, step)


def ask(client: Client, name: str) -> ListCheckpointsResponse:
    """The checkpoints of the job of this name or uid, and where they lie."""
    return client.call(client.stub.ListCheckpoints, ListCheckpointsRequest(name=name))
