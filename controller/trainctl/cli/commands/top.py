"""``trainctl top``: a table that is drawn again in place; plain lines, once, where nobody looks on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import Client, connect, find_job, list_jobs
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.phases import has_ended
from trainctl.cli.render import top
from trainctl.cli.streams.resume import resume
from trainctl.cli.terminal.style import clip
from trainctl.core.texts import harmless
from trainctl.protos.v1.job_pb2 import Job

EVERY_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def run(context: Context) -> int:
    """Shows jobs, or one job's workers."""
    if is_table(context) and context.console.draws_again(context.console.out):
        return _follow(context)
    with connect(context) as client:
        found = _look(context, client)
    emit(context, _data(context, found), table=lambda: _table(context, found), names=_names(found))
    return exit_codes.OK


def _follow(context: Context) -> int:
    """Draws until Ctrl-C; a controller that is away is waited for."""
    context.on_interrupt = ()
    stream, console = context.console.out, context.console

    def looks(client: Client) -> Any:
        while True:
            yield _look(context, client)
            time.sleep(EVERY_S)

    for found in resume(context, looks):
        width = console.width()
        lines = (harmless(clip(line, width)) for line in _table(context, found))
        stream.write(_HOME_AND_CLEAR + "".join(f"{line}\n" for line in lines))
        stream.flush()
    return exit_codes.OK


def _look(context: Context, client: Client) -> Sequence[Job]:
    name = context.options.name
    if not name:
        return sorted(list_jobs(client), key=lambda job: has_ended(job.status.phase))  # those that live first
    job = find_job(context, client, name)
    context.options.name = job.uid  # from now on this one, even if its name is used again
    return [job]


def _table(context: Context, found: Sequence[Job]) -> list[str]:
    style, now_s = context.console.style(), time.time()
    if context.options.name:
        return top.workers(found[0], now_s=now_s, style=style)
    return top.jobs(found, now_s=now_s, style=style)


def _data(context: Context, found: Sequence[Job]) -> Mapping[str, Any]:
    return plain(found[0]) if context.options.name else {"jobs": [plain(job) for job in found]}


def _names(found: Sequence[Job]) -> list[str]:
    return [job.spec.metadata.name for job in found]
