"""Where a reader of events has got to, so that nothing is shown twice after a reconnect."""

from __future__ import annotations

from collections.abc import Iterable
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
    shown: set[bytes] = field(default_factory=set[bytes])

    @property
    def ask_after(self) -> int:
        """What to ask the controller for: a little more than needed, in case a revision was seen only in part."""
        return max(self.revision - 1, 0)

    def new(self, events: Iterable[Event]) -> list[Event]:
        """Those of ``events`` that were not shown yet; they count as shown from now on."""
        fresh: list[Event] = []
        for event in events:
            key = event.SerializeToString(deterministic=True)
            if event.revision < self.revision or (event.revision == self.revision and key in self.shown):
                continue
            if event.revision > self.revision:
                self.revision, self.shown = event.revision, set()
            self.shown.add(key)
            fresh.append(event)
        return fresh
