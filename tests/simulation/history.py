"""What a run wrote, in an order and a form that invariants can be read off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulation.world import Ran
from trainctl.controller import keys
from trainctl.controller.store.port import KeyEvent

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One transaction that wrote the state of a job, or took it away.

    Attributes:
        before, after: the state; None where there was none.
        events: of the job, written with it.
        wrote: every key of the transaction.
    """

    at_s: float
    revision: int
    uid: str
    before: Json | None
    after: Json | None
    events: tuple[Json, ...]
    wrote: frozenset[str]

    @property
    def name(self) -> str:
        state = self.after or self.before
        assert state is not None
        return str(state["spec"]["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class History:
    """A run, read.

    Attributes:
        ran: the run.
        changes: of all jobs, in order.
        final: what the store held in the end, by key; values of jobs only.
    """

    ran: Ran
    changes: tuple[Change, ...]
    final: dict[str, Json] = field(repr=False)

    def of(self, uid: str) -> list[Change]:
        return [change for change in self.changes if change.uid == uid]

    @property
    def uids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(change.uid for change in self.changes))


def read(ran: Ran) -> History:
    """Decodes what the controllers wrote about jobs."""
    states: dict[str, Json] = {}
    changes = []
    for written in ran.written:
        for event in written.events:
            if not (event.key.startswith(keys.JOBS) and event.key.endswith(keys.STATUS)):
                continue
            uid = event.key.split("/")[-2]
            after = keys.decode(event.current.value) if event.current is not None else None
            changes.append(
                Change(
                    at_s=written.at_s,
                    revision=written.revision,
                    uid=uid,
                    before=states.get(uid),
                    after=after,
                    events=tuple(_events(written.events, uid)),
                    wrote=frozenset(one.key for one in written.events),
                )
            )
            if after is None:
                states.pop(uid, None)
            else:
                states[uid] = after
    return History(ran, tuple(changes), states)


def digest(ran: Ran) -> str:
    """Of all that happened: two runs are the same if this is."""
    hasher = hashlib.sha256()
    folder = ran.folder.encode()
    for written in ran.written:
        hasher.update(f"{written.at_s:.6f} {written.revision} {written.client}\n".encode())
        for event in written.events:
            value = event.current.value.replace(folder, b"FOLDER") if event.current is not None else b"-"
            hasher.update(event.key.encode() + b"=" + value + b"\n")
    for line in (*ran.obeyed, *ran.asked, *ran.ends):
        hasher.update(f"{line!r}\n".encode())
    return hasher.hexdigest()[:16]


def outline(ran: Ran) -> list[str]:
    """Who leads, and the events of all jobs, one a line, as a scenario expects them; then doubts about the store."""
    by_revision: dict[int, list[Change]] = {}
    for change in read(ran).changes:
        by_revision.setdefault(change.revision, []).append(change)
    lines = []
    for written in ran.written:
        for event in written.events:
            if event.key == keys.LEADER and event.current is not None:
                leader = keys.decode(event.current.value)
                lines.append(f"{leader['holder']} leads with epoch {leader['epoch']}")
        for change in by_revision.get(written.revision, ()):
            lines += [f"{change.name} {event['type']} {event['reason']}" for event in change.events]
    refused = dict.fromkeys(end.partition("#")[0] for end in ran.ends if "OldStoreError" in end)
    lines += [f"{name} refuses the store" for name in refused]
    return [*lines, *(f"doubt: {doubt}" for doubt in ran.doubts if doubt)]


def _events(events: tuple[KeyEvent, ...], uid: str) -> Iterator[Json]:
    for event in events:
        if event.key.startswith(keys.EVENTS) and f"/{uid}/" in event.key and event.current is not None:
            yield from keys.decode(event.current.value)
