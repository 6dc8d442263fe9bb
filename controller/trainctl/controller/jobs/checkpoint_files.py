"""What the controller itself does to the files of a job's checkpoints: looks, marks, removes. Everything blocks."""

from __future__ import annotations

from typing import Protocol

from trainctl.core.errors import DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef


class CheckpointFiles(Protocol):
    """The files behind a reference; what writes and reads them otherwise are the workers."""

    def look_at(self, ref: CheckpointRef) -> None:
        """Sees that a checkpoint can be gone back to.

        Raises:
            CheckpointError: it is not there, damaged, or on a storage that is away.
        """
        ...

    def pin(self, ref: CheckpointRef) -> None:
        """Marks it, so that those who remove old ones leave it alone.

        Raises:
            CheckpointError: it is not there (any more), or the storage refused.
        """
        ...

    def unpin(self, ref: CheckpointRef) -> None:
        """Takes the mark away; nothing happens if there is none.

        Raises:
            CheckpointError: the storage refused.
        """
        ...

    def accept(self, ref: CheckpointRef) -> None:
        """Takes the mark of a damaged one away, if there is one, after a look at its files.

        Raises:
            CheckpointError: one is missing or too short, the manifest is another one, or the storage refused.
        """
        ...

    def refuse(self, ref: CheckpointRef, reason: str) -> None:
        """Marks it as damaged, as a worker that found that does; a storage that refuses is no error."""
        ...

    def discard(self, ref: CheckpointRef) -> None:
        """Removes it; nothing happens if it is gone.

        Raises:
            CheckpointError: the storage refused; trying again later is safe.
        """
        ...


class StoredFiles:
    """Implements ``CheckpointFiles``: on whatever storage they lie. Its code is loaded when it is first needed."""

    def look_at(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept import catalog

        catalog.inspect(ref.uri)

    def pin(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept.pins import pin

        pin(ref)

    def unpin(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept.pins import unpin

        unpin(ref)

    def accept(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept.damage import unmark_damaged

        unmark_damaged(ref)

    def refuse(self, ref: CheckpointRef, reason: str) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept.damage import mark_damaged

        mark_damaged(ref, DamagedCheckpointError(reason))

    def discard(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        from trainctl.checkpoint.kept.retention import discard

        discard(ref)
