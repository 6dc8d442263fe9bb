"""Which lines of a job's logs somebody wants: the newest ones to begin with, or all behind those that they have."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainctl.agent.logs.files import LogLine, find_logs, read_log

MAX_LINES = 50_000
"""Lines of one slot in one answer."""

Life = tuple[int, int]
"""Slot and incarnation: one life of a worker has one log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What a reader wants.

    Attributes:
        job_uid: the job.
        slots: which ones; empty for all.
        incarnation: only this worker life; 0 for all.
        lines: newest lines of each slot, over all its lives; 0 for all that are kept.
        since: only lines whose time (RFC 3339, UTC, milliseconds) is not before this; empty for all.
        positions: last line that the reader has, by log.
        resumed: the reader was told before where the logs here begin; one without a position is wholly new to it.
    """

    job_uid: str
    slots: frozenset[int] = frozenset()
    incarnation: int = 0
    lines: int = 0
    since: str = ""
    positions: Mapping[Life, int] = field(default_factory=dict[Life, int])
    resumed: bool = False

    def wants(self, life: Life) -> bool:
        """Whether this log is asked for at all."""
        slot, incarnation = life
        return (not self.slots or slot in self.slots) and self.incarnation in (0, incarnation)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAnswer:
    """What was found.

    Attributes:
        starts: by log, the number of the last line before those that are given.
        lines: by slot, old to new.
    """

    starts: Mapping[Life, int]
    lines: tuple[LogLine, ...]


def answer(root: Path, query: LogQuery) -> LogAnswer:
    """Reads the logs below ``root``. At most ``MAX_LINES`` of a slot: a gap behind a start says what was left out."""
    starts: dict[Life, int] = {}
    by_slot: dict[int, deque[LogLine]] = defaultdict(deque)
    for slot, incarnation, path in find_logs(root / query.job_uid):
        life = (slot, incarnation)
        if not query.wants(life):
            continue
        known = query.positions.get(life, 0 if query.resumed else None)
        chosen = by_slot[slot]
        if known is not None:
            starts[life] = known
            chosen.extend(line for line in _lines(life, path) if line.number > known)
            _shorten(chosen, MAX_LINES)
        else:
            starts[life] = 0
            for line in _lines(life, path):
                if chosen or line.text[: len(query.since)] >= query.since:
                    chosen.append(line)
                else:
                    starts[life] = line.number
                for dropped in _shorten(chosen, min(query.lines or MAX_LINES, MAX_LINES)):
                    starts[slot, dropped.incarnation] = dropped.number
    return LogAnswer(starts=starts, lines=tuple(line for lines in by_slot.values() for line in lines))


def _lines(life: Life, path: Path) -> Iterator[LogLine]:
    slot, incarnation = life
    for number, text in read_log(path):
        yield LogLine(slot=slot, incarnation=incarnation, text=text, number=number)


def _shorten(lines: deque[LogLine], bound: int) -> list[LogLine]:
    return [lines.popleft() for _ in range(len(lines) - bound)]
