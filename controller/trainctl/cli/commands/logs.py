"""``trainctl logs``."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from trainctl.cli import exit_codes, phases
from trainctl.cli.client import Client, connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.output import stream_item
from trainctl.cli.positions import Replay, lines_after
from trainctl.cli.ranges import parse_numbers
from trainctl.cli.resume import StreamEndedError, resume
from trainctl.cli.style import Style
from trainctl.core.errors import NotFoundError, UsageError
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.v1.job_pb2 import Job, StreamLogsRequest, StreamLogsResponse

_MEMORY_LINES = 1000
MAX_TAIL = 1_000_000
_COLORS = ("cyan", "green", "yellow", "magenta", "blue")

Life = tuple[int, int]
"""Slot and incarnation: one life of a worker has one log."""


def run(context: Context) -> int:
    """Shows what the workers printed; with ``-f`` goes on until the job ends."""
    options = context.options
    if not 1 <= options.tail <= MAX_TAIL:
        raise UsageError(f"--tail: expected 1 to {MAX_TAIL}, found {options.tail}", hint="for example --tail 100")
    with connect(context) as client:
        job = get_job(client, options.name)
        slots = _slots(context, job)
        printer = _Printer(context, alone=len(slots) == 1 or sum(len(i.workers) for i in job.status.islands) == 1)
        request = StreamLogsRequest(tenant=DEFAULT_TENANT, name=job.uid, slots=slots, tail_lines=options.tail)
        if not options.follow:
            for chunk in client.stream(client.stub.StreamLogs, request):
                printer.show(chunk, chunk.lines)
            return exit_codes.OK
    name = job.spec.metadata.name
    context.on_interrupt = (f"detached: job {name} goes on", f"follow it again with: trainctl logs {name} -f")
    follower = _Follower(request)
    for chunk in resume(context, follower.chunks):
        printer.show(chunk, chunk.lines)
    return phases.exit_code(follower.final_phase)


def _slots(context: Context, job: Job) -> tuple[int, ...]:
    """The worker slots that ``--slot`` or ``--rank`` name; empty for all."""
    if context.options.slot:
        return parse_numbers("--slot", context.options.slot)
    if not context.options.rank:
        return ()
    by_rank = {worker.global_rank: worker.slot for island in job.status.islands for worker in island.workers}
    ranks = parse_numbers("--rank", context.options.rank)
    missing = [str(rank) for rank in ranks if rank not in by_rank]
    if missing:
        known = ", ".join(str(rank) for rank in sorted(by_rank) if rank >= 0) or "none at the moment"
        raise NotFoundError(
            f"job {job.spec.metadata.name} has no rank {', '.join(missing)}; it has {known}",
            hint=f"trainctl describe {job.spec.metadata.name} shows its workers",
        )
    return tuple(sorted(by_rank[rank] for rank in ranks))


class _Printer:
    """Writes lines; says whose they are unless there is only one worker."""

    def __init__(self, context: Context, *, alone: bool) -> None:
        self._console = context.console
        self._form = context.options.output
        self._style: Style = context.console.style()
        self._alone = alone

    def show(self, chunk: StreamLogsResponse, lines: Sequence[str]) -> None:
        if self._form in ("json", "yaml"):
            facts = {"slot": chunk.slot, "incarnation": chunk.incarnation, "node": chunk.node}
            self._console.data([stream_item({**facts, "line": line}, self._form) for line in lines])
            return
        color = _COLORS[chunk.slot % len(_COLORS)]
        prefix = "" if self._alone else self._style.paint(f"{chunk.slot}|", color) + " "
        self._console.data([f"{prefix}{line}" for line in lines])


class _Follower:
    """A log stream that knows what it has delivered.

    Lines have no numbers on the wire. So when a log shows up again after a reconnect, a window of its newest lines is
    read and laid over what was delivered last; then the new stream's first lines are laid over that window.
    """

    def __init__(self, request: StreamLogsRequest) -> None:
        self._request = request
        self._delivered: dict[Life, deque[str]] = defaultdict(lambda: deque(maxlen=_MEMORY_LINES))
        self.final_phase = ""

    def chunks(self, client: Client) -> Iterator[StreamLogsResponse]:
        """Chunks with lines that were not delivered yet, until the job has ended."""
        request = self._ask(follow=True, tail_lines=_MEMORY_LINES if self._delivered else self._request.tail_lines)
        replays: dict[Life, Replay] = {life: Replay(()) for life in self._delivered}
        resumed: set[Life] = set()
        for chunk in client.stream(client.stub.StreamLogs, request):
            life = (chunk.slot, chunk.incarnation)
            if life in replays and life not in resumed:
                # Only now, since after a controller's restart the agents come back one by one.
                resumed.add(life)
                window = self._window(client, chunk)
                replays[life] = Replay(window)
                yield from self._deliver(chunk, lines_after(list(self._delivered[life]), window))
            yield from self._deliver(chunk, replays[life].fresh(chunk.lines) if life in replays else chunk.lines)
        self.final_phase = get_job(client, self._request.name).status.phase
        if not phases.has_ended(self.final_phase):
            raise StreamEndedError("the controller ended the stream")

    def _window(self, client: Client, like: StreamLogsResponse) -> list[str]:
        """The newest lines of one log: twice what the stream begins with, so that it begins inside the window."""
        request = self._ask(follow=False, tail_lines=2 * _MEMORY_LINES, slots=(like.slot,))
        found = client.stream(client.stub.StreamLogs, request)
        lines = [line for chunk in found if chunk.incarnation == like.incarnation for line in chunk.lines]
        return lines or list(like.lines)

    def _ask(self, *, follow: bool, tail_lines: int, slots: Sequence[int] | None = None) -> StreamLogsRequest:
        base = self._request
        chosen = base.slots if slots is None else slots
        return StreamLogsRequest(tenant=base.tenant, name=base.name, slots=chosen, tail_lines=tail_lines, follow=follow)

    def _deliver(self, chunk: StreamLogsResponse, lines: Sequence[str]) -> Iterator[StreamLogsResponse]:
        if lines:
            self._delivered[chunk.slot, chunk.incarnation].extend(lines)
            yield StreamLogsResponse(slot=chunk.slot, incarnation=chunk.incarnation, node=chunk.node, lines=lines)
