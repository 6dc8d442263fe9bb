"""Reading logs so that each line is shown once, whatever breaks on the way: lines have numbers, the last is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trainctl.cli import phases
from trainctl.cli.connection.client import Client, get_job
from trainctl.cli.streams.resume import StreamEndedError
from trainctl.core.units import format_count
from trainctl.protos.v1.job_pb2 import StreamLogsRequest, StreamLogsResponse

Life = tuple[int, int]
"""Slot and incarnation: one life of a worker has one log."""


@dataclass(slots=True, kw_only=True)
class LogReader:
    """Where somebody who reads a job's logs has got to.

    Attributes:
        uid: of the job.
        slots: which ones; empty for all.
        incarnation: only this worker life; 0 for all.
        at_least: by slot, the oldest life to show.
        tail: newest lines of each slot to begin with; 0 for all.
        since_s: only lines that are not older; Unix seconds, 0 for all.
        positions: number of the last line shown, by log.
        begun: nodes that have said where their logs begin: what else they have is new.
        final_phase: the job's, when it has ended.
    """

    uid: str
    slots: tuple[int, ...] = ()
    incarnation: int = 0
    at_least: Mapping[int, int] = field(default_factory=dict[int, int])
    tail: int = 0
    since_s: float = 0.0
    positions: dict[Life, int] = field(default_factory=dict[Life, int])
    begun: set[str] = field(default_factory=set[str])
    final_phase: str = ""

    def read(self, client: Client) -> Iterator[StreamLogsResponse]:
        """What there is behind the positions."""
        yield from self._fresh(client, follow=False)

    def follow(self, client: Client) -> Iterator[StreamLogsResponse]:
        """What there is behind the positions and what comes, until the job has ended.

        Raises:
            StreamEndedError: the stream ended before the job.
        """
        yield from self._fresh(client, follow=True)
        self.final_phase = get_job(client, self.uid).status.phase
        if not phases.has_ended(self.final_phase):
            raise StreamEndedError("the controller ended the stream")
        yield from self._fresh(client, follow=False)  # an agent may have been away when the job ended

    def _fresh(self, client: Client, *, follow: bool) -> Iterator[StreamLogsResponse]:
        request = StreamLogsRequest(
            name=self.uid,
            slots=self.slots,
            incarnation=self.incarnation,
            tail_lines=self.tail,
            since_s=self.since_s,
            follow=follow,
            begun_nodes=sorted(self.begun),
        )
        for (slot, incarnation), line in self.positions.items():
            request.positions.add(slot=slot, incarnation=incarnation, line=line)
        for answer in client.stream(client.stub.StreamLogs, request):
            yield from self._new(answer)

    def _new(self, answer: StreamLogsResponse) -> Iterator[StreamLogsResponse]:
        """Of an answer, what was not shown yet; before it, how much is missing."""
        if answer.begun:
            self.begun.add(answer.node)
            for start in answer.starts:
                self.positions.setdefault((start.slot, start.incarnation), start.line)
            return
        if answer.incarnation < self.at_least.get(answer.slot, 0):
            return
        if not answer.first_line:
            yield answer
            return
        life = (answer.slot, answer.incarnation)
        expected = self.positions.get(life, 0) + 1
        missing = answer.first_line - expected
        self.positions[life] = max(expected, answer.first_line + len(answer.lines)) - 1
        if missing > 0:
            lines_missing = format_count(missing, "line")
            yield _like(answer, [f"[{lines_missing} left out: not kept any more, or the reader was too slow]"], 0)
        lines = answer.lines[max(-missing, 0) :]
        if lines:
            yield _like(answer, lines, max(answer.first_line, expected))


def _like(answer: StreamLogsResponse, lines: list[str], first_line: int) -> StreamLogsResponse:
    return StreamLogsResponse(
        slot=answer.slot, incarnation=answer.incarnation, node=answer.node, lines=lines, first_line=first_line
    )
