"""Where the parts of a save go, what completes them there, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trainctl.checkpoint.engine import Attempt, PartReport
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.save.saving import EntryData
from trainctl.checkpoint.snapshot.background import (
    RETRY_AFTER_S,
    SharePart,
    WritePart,
    keep_to_oneself,
)
from trainctl.core.records.generation import CheckpointRef
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.sealing import Collected, Sealer, SealThread


class Place(Protocol):
    """One rank's view of a place to save to, for one generation.

    Attributes:
        seals: this rank completes what all have written there.
        over: it takes no more saves in this generation; all ranks say the same at the same boundary.
        retry_after_s: waits before a write that failed is tried again.
    """

    seals: bool
    over: bool
    retry_after_s: Sequence[float]

    def prepare(self) -> None:
        """Called by all ranks at the same boundary, before each save.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        ...

    def write(self, attempt: Attempt, shapes: Mapping[StateKey, Shape], *, wrote: Callable[[int], None]) -> WritePart:
        """Writes this rank's part of the attempt.

        Args:
            attempt: which save.
            shapes: of the whole state.
            wrote: told the size of every block that the place took.
        """
        ...

    def share(self, attempt: Attempt) -> SharePart:
        """Follows the writing."""
        ...

    def seal(self, save: Collected, *, before: SealThread | None, changed: Callable[[], None]) -> SealThread:
        """Begins to complete the attempt, on a rank that seals; see ``Sealer.begin``."""
        ...

    def settle(self, attempt: Attempt, sealed: Sequence[CheckpointRef | None]) -> None:
        """Everybody knows how the attempt ended.

        Args:
            attempt: which one.
            sealed: by rank, what it completed; None where it failed, or does not seal.
        """
        ...

    def leave(self) -> None:
        """The generation is over."""
        ...

    def clear(self) -> None:
        """The run is over: what only going on with it would need may go."""
        ...


@dataclass(slots=True, kw_only=True)
class StoragePlace:
    """The job's storage: rank 0 completes a checkpoint, which is then everybody's parent of the next.

    Attributes:
        checkpoints: the job's means to save.
        replica: what is saved.
        sealer: how rank 0 seals.
        rank: own rank.
        seals: see ``Place``.
        over: see ``Place``.
        retry_after_s: see ``Place``.
    """

    checkpoints: Checkpoints
    replica: Replica
    sealer: Sealer
    rank: int
    seals: bool = False
    over: bool = False
    retry_after_s: Sequence[float] = field(default_factory=lambda: RETRY_AFTER_S)

    def __post_init__(self) -> None:
        self.seals = self.rank == 0

    def prepare(self) -> None:
        """Nothing."""

    def write(self, attempt: Attempt, shapes: Mapping[StateKey, Shape], *, wrote: Callable[[int], None]) -> WritePart:
        """By a writer of its own, since opening the storage can fail, too."""

        def write(data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
            writer = self.checkpoints.writer()
            return writer.write_part(
                attempt, writer=self.rank, data=data, shapes=shapes, alive=alive, confirm=confirm, wrote=wrote
            )

        return write

    def share(self, attempt: Attempt) -> SharePart:
        """Nobody else needs the part."""
        return keep_to_oneself

    def seal(self, save: Collected, *, before: SealThread | None, changed: Callable[[], None]) -> SealThread:
        """As ``Sealer.begin``."""
        return self.sealer.begin(save, parent=self.replica.checkpoint, before=before, changed=changed)

    def settle(self, attempt: Attempt, sealed: Sequence[CheckpointRef | None]) -> None:
        """From now on it is the parent of the next."""
        self.replica.checkpoint = sealed[0] or self.replica.checkpoint

    def leave(self) -> None:
        """What had all its parts is still completed."""

    def clear(self) -> None:
        """Checkpoints are for later."""
