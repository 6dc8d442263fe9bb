"""``trainctl plot``."""

from __future__ import annotations

import shutil

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import connect, find_job, list_figures
from trainctl.cli.context import Context
from trainctl.cli.job_file.job_kind import runs_command
from trainctl.cli.phases import has_ended
from trainctl.cli.plot.curves import metrics_of, plot_of
from trainctl.cli.plot.picture import draw_picture, picture_path
from trainctl.cli.plot.text import Look, draw_text
from trainctl.core.errors import PreconditionError
from trainctl.protos.v1.job_pb2 import Job

_MAX_ROWS = 16
_OTHER_LINES = 4
"""Of a panel, beside the curves: legend, axis, steps."""


def run(context: Context) -> int:
    """Draws the curves of a job, in the terminal or into a file."""
    options, console = context.options, context.console
    metrics = metrics_of(options.metric)
    if options.output:
        picture_path(options.output, job="job")  # before anything is asked
    with connect(context) as client:
        job = find_job(context, client, options.name)
        figures = list_figures(client, job.uid)
    name = job.spec.metadata.name
    if runs_command(job):
        raise PreconditionError(
            f"job {name} runs a command, which keeps its figures itself: there is nothing to draw",
            hint=f"what it prints shows: trainctl logs {name}",
        )
    ended = has_ended(job.status.phase)
    hint = f"how it ended says: trainctl explain {name}" if ended else f"look again later: trainctl watch {name}"
    plot = plot_of(_title(job), figures, job.status.recoveries, metrics, hint=hint)
    if options.output:
        path = picture_path(options.output, job=name)
        draw_picture(plot, path)
        console.data(str(path))
        return exit_codes.OK
    height = shutil.get_terminal_size().lines - 2 - len(plot.marks)
    rows = min(_MAX_ROWS, height // len(plot.panels) - _OTHER_LINES)
    look = Look(columns=console.width(), rows=rows, ascii_only=console.ascii_only, style=console.style())
    console.data(draw_text(plot, look))
    return exit_codes.OK


def _title(job: Job) -> str:
    status = job.status
    return f"{job.spec.metadata.name}: {status.phase}, step {status.step} of {status.total_steps}"
