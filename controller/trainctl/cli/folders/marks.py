"""The mark beside a damaged checkpoint, as ``checkpoints verify`` puts it there and takes it away again.

A storage that cannot be written is no error: what was found is said all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.checkpoint.kept.damage import put_mark, read_mark, unmark_damaged
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.cli.render.refused import short_reason
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What became of a mark: whether it was put there, or taken away, and a sentence that says so, if there is one."""

    done: bool = False
    line: str = ""

    @property
    def lines(self) -> list[str]:
        """The sentence, if there is one."""
        return [self.line] if self.line else []


UNCERTAIN = Noted(
    line="it is not marked as damaged: some of it is only unknown to this version, and may be right for a newer one"
)


def found(ref: CheckpointRef) -> str:
    """What the mark says; empty if there is none, or nobody may look."""
    try:
        with storage_errors(f"looking at the checkpoint {ref.uri}"):
            return read_mark(open_storage(ref.uri))
    except CheckpointError:
        return ""


def put(ref: CheckpointRef, what: str) -> Noted:
    """Marks it as damaged."""
    try:
        marked = put_mark(ref, what)
    except CheckpointError as error:
        return Noted(line=f"it could not be marked, so that others find out for themselves: {error}")
    if not marked:
        return Noted(line="it is not marked: its manifest has gone meanwhile")
    return Noted(done=True, line="it is marked as damaged, so that nobody takes it for the newest")


def take(ref: CheckpointRef, mark: str) -> Noted:
    """Takes the mark away that said ``mark`` before every byte was found right; another one is newer, and stays."""
    if not mark or found(ref) != mark:
        return Noted()
    try:
        unmark_damaged(ref)
    except CheckpointError as error:
        return Noted(line=f"it was marked as damaged, and the mark could not be taken away: {error}")
    return Noted(done=True, line=f"it was marked as damaged, and is no longer: {short_reason(mark, ref.uri)}")
