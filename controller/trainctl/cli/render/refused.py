"""Checkpoints that were found damaged, beside those that are committed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from trainctl.cli.output import plain
from trainctl.cli.terminal.style import Style, table
from trainctl.cli.terminal.times import age
from trainctl.protos.v1.job_pb2 import ListCheckpointsResponse, RefusedCheckpoint
from trainctl.protos.v1.records_pb2 import CheckpointRef

COMMITTED, REFUSED = "committed", "refused"
RESTORE = "if there is a copy of its folder, put that back"
"""What to do about a refused one whose files are gone: they go when the job has saved enough newer ones."""
_SHORT = 200


def in_order(answer: ListCheckpointsResponse) -> list[CheckpointRef]:
    """Committed and refused ones together, the oldest first."""
    everything = [*answer.checkpoints, *(one.ref for one in answer.refused)]
    return sorted(everything, key=lambda ref: (ref.lineage, ref.step))


def refusals(answer: ListCheckpointsResponse) -> dict[str, RefusedCheckpoint]:
    """The refused ones by their URI."""
    return {one.ref.uri: one for one in answer.refused}


def data_of(ref: CheckpointRef, refused: Mapping[str, RefusedCheckpoint]) -> dict[str, Any]:
    """One for machines: with its ``state``, and for a refused one the whole ``reason`` and since when."""
    found = refused.get(ref.uri)
    if found is None:
        return {**plain(ref), "state": COMMITTED}
    since = plain(found)["at"]  # null where only the files are known
    return {**plain(ref), "state": REFUSED, "reason": found.reason, "refusedSince": since}


def lines(
    found: Iterable[CheckpointRef],
    *,
    refused: Mapping[str, RefusedCheckpoint],
    pinned: Collection[str],
    missing: Collection[str],
    now_s: float,
    style: Style,
) -> list[str]:
    """A table with one line for each, and below it a line for each refused one that says why."""
    shown = list(found)
    rows = [
        (
            str(ref.step),
            str(ref.lineage),
            age(ref.committed_s, now_s),
            "yes" if ref.uri in pinned else "-",
            style.paint(REFUSED, "red") if ref.uri in refused else COMMITTED,
            ref.attempt,
            ref.uri,
        )
        for ref in shown
    ]
    headers = ("STEP", "LINEAGE", "AGE", "PINNED", "STATE", "ATTEMPT", "URI")
    damaged = [refused[ref.uri] for ref in shown if ref.uri in refused]
    reasons = [
        f"step {one.ref.step} {_since(one, now_s)}: {short_reason(one.reason, one.ref.uri)}"
        + ("; its files are gone" if one.ref.uri in missing else "")
        for one in damaged
    ]
    return [*table(headers, rows, style=style, right="STEP,LINEAGE,AGE"), *reasons]


def _since(one: RefusedCheckpoint, now_s: float) -> str:
    return f"was refused {age(one.at_s, now_s)} ago" if one.at_s else "is refused"


def short_reason(reason: str, uri: str) -> str:
    """In one line, with paths inside of the checkpoint."""
    text = " ".join(reason.replace(f"{uri}/", "").split())
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
