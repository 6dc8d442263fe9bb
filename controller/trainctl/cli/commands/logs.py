"""``trainctl logs``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trainctl.cli import exit_codes, phases
from trainctl.cli.connection.client import connect, find_job
from trainctl.cli.context import Context
from trainctl.cli.grammar.ranges import parse_numbers
from trainctl.cli.output import is_table, stream_item
from trainctl.cli.streams.log_choice import check_choice, check_known
from trainctl.cli.streams.log_reader import LogReader
from trainctl.cli.streams.resume import resume
from trainctl.cli.terminal.style import Style
from trainctl.cli.terminal.times import since
from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted
from trainctl.protos.v1.job_pb2 import Job, StreamLogsResponse

MAX_TAIL = 1_000_000
DEFAULT_TAIL = 100
_COLORS = ("cyan", "green", "yellow", "magenta", "blue")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ")


def run(context: Context) -> int:
    """Shows what the workers printed; with ``-f`` goes on until the job ends."""
    options = context.options
    tail, since_s = _tail(context), since(options.since)
    incarnation = _incarnation(options.attempt, options.name)
    with connect(context) as client:
        job = find_job(context, client, options.name)
        slots = _slots(context, job)
        if incarnation or options.slot is not None:
            check_choice(client, job, slots=slots, incarnation=incarnation, follow=options.follow)
        reader = LogReader(
            uid=job.uid,
            slots=slots,
            incarnation=incarnation,
            at_least=_newest(job) if options.attempt == "last" else {},
            tail=tail,
            since_s=since_s,
        )
        workers = sum(len(island.workers) for island in job.status.islands)
        printer = _Printer(context, alone=len(reader.slots) == 1 or workers == 1)
        if not options.follow:
            for chunk in reader.read(client):
                printer.show(chunk)
            return exit_codes.OK
    name = job.spec.metadata.name
    context.on_interrupt = (f"detached: job {name} goes on", f"follow it again with: trainctl logs {name} -f")
    for chunk in resume(context, reader.follow, was_there=True):
        printer.show(chunk)
    return phases.exit_code(reader.final_phase)


def _tail(context: Context) -> int:
    tail: int | None = context.options.tail
    if tail is None:
        return 0 if context.options.since is not None else DEFAULT_TAIL
    if not 1 <= tail <= MAX_TAIL:
        raise UsageError(f"--tail: expected 1 to {MAX_TAIL}, found {tail}", hint="for example --tail 100")
    return tail


def _incarnation(text: str, name: str) -> int:
    """The one life that is asked for by its number; 0 for ``all`` and ``last``."""
    if text in ("all", "last"):
        return 0
    if not re.fullmatch(r"[1-9]\d{0,17}", text):
        raise UsageError(
            f"--attempt: expected last, all or the number of a worker's life, found {quoted(text)}",
            hint=f"`trainctl describe {name} -o json` shows the numbers as incarnation",
        )
    return int(text)


def _newest(job: Job) -> Mapping[int, int]:
    return {worker.slot: worker.incarnation for island in job.status.islands for worker in island.workers}


def _slots(context: Context, job: Job) -> tuple[int, ...]:
    """The worker slots that ``--slot`` or ``--rank`` name; empty for all."""
    options = context.options
    if options.slot is not None and options.slot != "all":
        return parse_numbers("--slot", options.slot)
    if options.rank is None or options.rank == "all":
        return ()
    by_rank = {worker.global_rank: worker.slot for island in job.status.islands for worker in island.workers}
    ranks = parse_numbers("--rank", options.rank)
    check_known(job, "rank", ranks, [rank for rank in by_rank if rank >= 0])
    return tuple(sorted(by_rank[rank] for rank in ranks))


class _Printer:
    """Writes lines; says whose they are unless there is only one worker."""

    def __init__(self, context: Context, *, alone: bool) -> None:
        self._console = context.console
        self._form = context.options.output
        self._table = is_table(context)
        self._timestamps = context.options.timestamps
        self._style: Style = context.console.style()
        self._alone = alone

    def show(self, chunk: StreamLogsResponse) -> None:
        """Writes the lines of a chunk."""
        if self._table:
            color = _COLORS[chunk.slot % len(_COLORS)]
            prefix = "" if self._alone else self._style.paint(f"{chunk.slot}|", color) + " "
            self._console.data([f"{prefix}{self._text(line)}" for line in chunk.lines])
        elif self._form == "name":
            self._console.data([f"{chunk.slot}-{chunk.incarnation}"])
        else:
            self._console.data([self._item(chunk, index, line) for index, line in enumerate(chunk.lines)])

    def _text(self, line: str) -> str:
        stamp = _STAMP.match(line)
        return line if self._timestamps or stamp is None else line[stamp.end() :]

    def _item(self, chunk: StreamLogsResponse, index: int, line: str) -> str:
        stamp = _STAMP.match(line)
        facts = {
            "slot": chunk.slot,
            "incarnation": chunk.incarnation,
            "node": chunk.node,
            "number": chunk.first_line + index if chunk.first_line else None,
            "time": stamp[1] if stamp is not None else None,
            "line": line[stamp.end() :] if stamp is not None else line,
        }
        return stream_item(facts, self._form, ascii_only=self._console.ascii_only)
