"""Where a reader of events or of logs has got to, so that nothing is shown twice after a reconnect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trainctl.protos.v1.job_pb2 import Event


@dataclass(slots=True)
class EventPosition:
    """The newest event shown. Several events may share one revision (one transaction wrote them).

    Attributes:
        revision: of the newest event shown.
        shown: the events shown of that revision.
    """

    revision: int = 0
    shown: set[bytes] = field(default_factory=set)

    @property
    def ask_after(self) -> int:
        """What to ask the controller for: a little more than needed, in case a revision was seen only in part."""
        return max(self.revision - 1, 0)

    def new(self, events: Iterable[Event]) -> list[Event]:
        """Those of ``events`` that were not shown yet; they count as shown from now on."""
        fresh = []
        for event in events:
            key = event.SerializeToString(deterministic=True)
            if event.revision < self.revision or (event.revision == self.revision and key in self.shown):
                continue
            if event.revision > self.revision:
                self.revision, self.shown = event.revision, set()
            self.shown.add(key)
            fresh.append(event)
        return fresh


def lines_after(shown: Sequence[str], window: Sequence[str]) -> list[str]:
    """What of ``window`` comes after what was shown.

    Both are pieces of one log: ``shown`` ends where the reader was cut off, ``window`` ends now. Lines have no numbers,
    so the longest overlap that fits is taken; without any, the whole window is new.
    """
    for end in range(len(window), 0, -1):
        overlap = min(end, len(shown))
        if overlap and list(window[end - overlap : end]) == list(shown[len(shown) - overlap :]):
            return list(window[end:])
    return list(window)


class Replay:
    """Drops from a stream what the reader has already: the stream starts somewhere inside ``known``, or after it."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = list(known)
        self._starts = list(range(len(known)))
        self._position = 0

    def fresh(self, lines: Iterable[str]) -> list[str]:
        """Those of the next ``lines`` that are not in ``known``."""
        return [line for line in lines if not self._is_known(line)]

    def _is_known(self, line: str) -> bool:
        if not self._starts:
            return False
        at, known = self._position, self._known
        self._position += 1
        self._starts = [s for s in self._starts if s + at < len(known) and known[s + at] == line]
        return bool(self._starts)
