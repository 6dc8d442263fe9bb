"""Looks at every byte of a checkpoint that nobody has loaded yet, before it takes the place of those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.kept.verification import verify
from trainctl.core.errors import DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef

_NAMED = 8
"""Files that the error names."""
_HINT = "what was saved before it stays; look for a bad disk, cable or memory on the way to the storage"


def read_back(ref: CheckpointRef, *, pause: Callable[[], None] | None = None) -> None:
    """Sees that a checkpoint is what was saved; one that is not is marked, so that nobody takes it for the newest.

    Args:
        ref: which one.
        pause: as ``verification.verify``.

    Raises:
        DamagedCheckpointError: names files, and what is wrong with them.
        CheckpointError: the storage refused, or is away.
    """
    try:
        damage = verify(ref, pause=pause).damage
        if damage:
            raise DamagedCheckpointError(shortest(damage), hint=_HINT, uri=ref.uri)
    except DamagedCheckpointError as error:
        mark_damaged(ref, error)
        raise


def shortest(damage: Sequence[str]) -> str:
    """What is wrong with the first files of many, a line each, and how many more there are."""
    more = [f"and {len(damage) - _NAMED} more files"] if len(damage) > _NAMED else []
    return "\n".join([*damage[:_NAMED], *more])
