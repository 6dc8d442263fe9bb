"""``trainctl get jobs|job|nodes``; ``get checkpoints`` is in ``commands.checkpoints``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trainctl.cli import exit_codes, phases
from trainctl.cli.connection.client import Client, connect, find_job, get_job, list_jobs
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.render import tables
from trainctl.cli.streams.changes import watch_rows
from trainctl.core.errors import UsageError
from trainctl.protos.v1.job_pb2 import Job, ListNodesRequest, NodeStatus


def jobs(context: Context) -> int:
    """Lists the jobs, or shows the one that is named."""
    options = context.options
    if options.name:
        if options.selector is not None or options.filter is not None:
            raise UsageError("a job's name goes with neither --selector nor --filter", hint="leave one of them out")
        return job(context)
    wanted = _wanted(context)
    if context.options.watch:
        watch_rows(
            context,
            lambda client: _choose(list_jobs(client), wanted),
            key=lambda job: job.uid,
            state=_state,
            data=lambda job: _plain_job(context, job),
            lines=lambda found: _table(context, found),
            name=lambda job: job.spec.metadata.name,
        )
        return exit_codes.OK
    with connect(context) as client:
        found = _choose(list_jobs(client), wanted)
    if not found and is_table(context):
        context.console.say(
            "no such job" if wanted is not None else "no jobs yet; submit one with: trainctl submit -f job.yaml"
        )
        return exit_codes.OK
    emit(
        context,
        {"jobs": [_plain_job(context, job) for job in found]},
        table=lambda: _table(context, found),
        names=[job.spec.metadata.name for job in found],
    )
    return exit_codes.OK


def job(context: Context) -> int:
    """Shows one job in a line."""
    _check_defaults(context)
    with connect(context) as client:
        found = find_job(context, client, context.options.name)
    if context.options.watch:
        return _watch_job(context, found)
    emit(
        context,
        _plain_job(context, found),
        table=lambda: _table(context, [found]),
        names=[found.spec.metadata.name],
    )
    return exit_codes.OK


def nodes(context: Context) -> int:
    """Lists the nodes and their agents."""
    style = context.console.style()
    wide = context.options.output == "wide"

    def table(found: Sequence[NodeStatus]) -> list[str]:
        return tables.nodes(found, style=style, wide=wide)

    if context.options.watch:
        watch_rows(
            context,
            list_nodes,
            key=lambda node: node.node,
            state=lambda node: (node.state, node.slots_used, node.agent_incarnation),
            data=plain,
            lines=table,
            name=lambda node: node.node,
        )
        return exit_codes.OK
    with connect(context) as client:
        found = list_nodes(client)
    if not found and is_table(context):
        context.console.say("no nodes: no agent has registered yet")
        return exit_codes.OK
    emit(
        context,
        {"nodes": [plain(node) for node in found]},
        table=lambda: table(found),
        names=[node.node for node in found],
    )
    return exit_codes.OK


def list_nodes(client: Client) -> Sequence[NodeStatus]:
    """All nodes."""
    return client.call(client.stub.ListNodes, ListNodesRequest()).nodes


def _watch_job(context: Context, found: Job) -> int:
    newest = found

    def look(client: Client) -> list[Job]:
        nonlocal newest
        newest = get_job(client, found.uid)
        return [newest]

    watch_rows(
        context,
        look,
        key=lambda job: job.uid,
        state=_state,
        data=lambda job: _plain_job(context, job),
        lines=lambda rows: _table(context, rows),
        name=lambda job: job.spec.metadata.name,
        until=lambda: phases.has_ended(newest.status.phase),
    )
    return phases.exit_code(newest.status.phase)


def _state(job: Job) -> object:
    """What of a job is worth a new line."""
    status = job.status
    return (status.phase, status.reason, status.message, len(status.recoveries), status.checkpoint.step)


def _wanted(context: Context) -> Callable[[Job], bool] | None:
    """What ``-l`` and ``--filter`` ask for, checked before anybody is called; None: every job."""
    _check_defaults(context)
    options = context.options
    if options.selector is None and options.filter is None:
        return None
    # A plain listing does without the language of expressions.
    from trainctl.cli.query.labels import fits, read_labels
    from trainctl.cli.query.reader import read_predicate
    from trainctl.cli.query.select import holds

    labels = read_labels(options.selector) if options.selector is not None else ()
    predicate = read_predicate(options.filter) if options.filter is not None else None
    return lambda job: fits(job.spec.metadata.labels, labels) and (predicate is None or holds(predicate, plain(job)))


def _choose(found: Iterable[Job], wanted: Callable[[Job], bool] | None) -> list[Job]:
    return [job for job in found if wanted is None or wanted(job)]


def _check_defaults(context: Context) -> None:
    if context.options.show_defaults and (is_table(context) or context.options.output == "name"):
        raise UsageError("--show-defaults shows the spec, which a table does not", hint="add -o yaml")


def _plain_job(context: Context, job: Job) -> dict[str, Any]:
    """The job for machines; what the user did not write is shown where it is asked for.

    Expressions see the whole spec: a path shall not lead to nothing because of the value at its end.
    """
    data = plain(job)
    if not context.options.show_defaults:
        data.pop("effectiveSpec", None)
        if context.options.output in ("json", "yaml"):
            # Scripts ask for a field again and again, and need nothing of what this loads.
            from trainctl.cli.job_file.written import without_defaults

            data["spec"] = without_defaults(data["spec"])
    return data


def _table(context: Context, found: Sequence[Job]) -> list[str]:
    wide = context.options.output == "wide"
    return tables.jobs(found, now_s=time.time(), style=context.console.style(), wide=wide)
