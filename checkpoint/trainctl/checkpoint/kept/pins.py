"""Checkpoints that somebody wants kept: a mark beside the manifest, where those who remove old ones see it."""

from __future__ import annotations

import contextlib

from trainctl.checkpoint.manifest.names import PIN
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef


def pin(ref: CheckpointRef) -> None:
    """Marks a checkpoint as one that ``retain`` leaves alone.

    Raises:
        CheckpointError: it is not there (any more), or the storage refused.
    """
    with storage_errors(f"pinning the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        read_root(storage, expected_sha256=ref.manifest_sha256)
        with contextlib.suppress(FileExistsError):
            storage.create_file(PIN, b"kept until: trainctl checkpoints unpin\n")
        try:
            read_root(storage, expected_sha256=ref.manifest_sha256)  # somebody may have been removing it
        except CheckpointError:
            unpin(ref)
            raise


def unpin(ref: CheckpointRef) -> None:
    """Takes the mark away; nothing happens if there is none.

    Raises:
        CheckpointError: the storage refused.
    """
    with storage_errors(f"unpinning the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        storage.delete(PIN)
        storage.delete_if_empty("")


def is_pinned(ref: CheckpointRef) -> bool:
    """Whether the mark is there.

    Raises:
        CheckpointError: the storage refused.
    """
    with storage_errors(f"looking at the checkpoint {ref.uri}"):
        return open_storage(ref.uri).size(PIN) is not None
