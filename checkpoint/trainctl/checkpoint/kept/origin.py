"""What a checkpoint that was imported says of itself: how a job begins with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.values import decode_value
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import CheckpointError, UnfitCheckpointError
from trainctl.core.plain import is_mapping
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.texts import shortened

LIBRARY = "library"
"""In the place of a job's uid: a script saved it (``trainctl.checkpoint.library``)."""
_NAME = "imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Beside the tensors there is nothing of what a job saves: what a program registers begins as it was built.

    Attributes:
        cursor: samples of the data to skip.
        optimizer: whether the state of one optimizer is there.
    """

    cursor: int
    optimizer: bool

    def objects(self) -> Mapping[str, Any]:
        """The objects of the checkpoint: ``optimizers`` and ``registered`` as everybody saves them."""
        mark = {"cursor": self.cursor, "optimizer": self.optimizer}
        return {_NAME: mark, "registered": {}, "optimizers": [{}] if self.optimizer else []}


def origin_of(ref: CheckpointRef) -> Imported | None:
    """How to begin with it, if it was imported; None: a job saved it, and all that a job goes on with.

    Raises:
        UnfitCheckpointError: a script saved it, so that nobody knows where in the data it was.
        CheckpointError: it is missing, or another one.
    """
    with storage_errors(f"reading the checkpoint {ref.uri}"):
        root, _ = read_root(open_storage(ref.uri), expected_sha256=ref.manifest_sha256)
    if root.job == LIBRARY:
        raise UnfitCheckpointError(
            f"{ref.uri} was saved by a script (trainctl.checkpoint.library), which does not say where in the data it "
            "was: a job does not go on from it",
            hint="to begin with its weights: `trainctl checkpoints export` it, `import` what that wrote, and name that",
        )
    mark = decode_value(root.objects).get(_NAME)
    if not is_mapping(mark):
        return None
    try:
        return Imported(cursor=int(mark["cursor"]), optimizer=bool(mark["optimizer"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{ref.uri}: expected where in the data an imported checkpoint is, found {shortened(str(mark))}",
            hint="import it again: trainctl checkpoints import",
        ) from error
