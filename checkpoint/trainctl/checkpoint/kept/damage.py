"""Checkpoints that were found damaged: a mark beside the manifest, so that nobody takes them for the newest again.

Whoever loads, verifies or reads it back finds the damage, by the checksums. The mark says so to those who choose
without reading every byte: ``catalog``, which passes it over, and ``retention``, which does not count it among those
that are kept. Taking the file away makes the checkpoint what it was.
"""

from __future__ import annotations

import contextlib
import logging

from trainctl.checkpoint.manifest.names import DAMAGED, ROOT_MANIFEST
from trainctl.checkpoint.manifest.reading import check_files, read_root
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import DamagedCheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef

_LOG = logging.getLogger("trainctl.checkpoint")
_MAX_CHARACTERS = 4000


def mark_damaged(ref: CheckpointRef, error: DamagedCheckpointError) -> bool:
    """Marks a checkpoint with what was found; whether it is marked now. A storage that refuses is no error here."""
    try:
        marked = put_mark(ref, str(error))
    except (OSError, TrainctlError) as refused:
        _LOG.warning("%s could not be marked as damaged: %s", ref.uri, refused)
        return False
    return marked


def put_mark(ref: CheckpointRef, found: str) -> bool:
    """As ``mark_damaged``, for those who say why it could not be marked; a mark that is there stays as it is.

    Returns:
        False where there is no root manifest: it is no checkpoint any more, and a mark would bring its folder back.

    Raises:
        CheckpointError: the storage refused.
    """
    with storage_errors(f"marking the checkpoint {ref.uri} as damaged"):
        storage = open_storage(ref.uri)
        if storage.size(ROOT_MANIFEST) is None:
            return False
        with contextlib.suppress(FileExistsError):
            storage.create_file(DAMAGED, f"{found}\n"[:_MAX_CHARACTERS].encode())
        return True


def refuse_marked(ref: CheckpointRef) -> None:
    """Sees that nobody found a checkpoint damaged which somebody wants to begin with.

    Raises:
        DamagedCheckpointError: somebody did; says what was found.
        CheckpointError: the storage refused.
    """
    with storage_errors(f"looking at the checkpoint {ref.uri}"):
        mark = read_mark(open_storage(ref.uri))
    if mark:
        raise DamagedCheckpointError(
            f"{ref.uri} was found damaged: {mark}",
            hint=f"name another; or restore its files from a copy, then: trainctl checkpoints verify {ref.uri}",
            uri=ref.uri,
        )


def unmark_damaged(ref: CheckpointRef) -> None:
    """Takes the mark away, once every file is there with its size; that their bytes are right the caller has seen.

    Raises:
        CheckpointError: the root manifest is missing or another one, a file is missing or cut off, or the storage
            refused. The mark stays.
    """
    with storage_errors(f"accepting the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256)
        check_files(storage, root)
        storage.delete(DAMAGED)


def read_mark(storage: Storage, folder: str = "") -> str:
    """What the mark of the attempt in ``folder`` says; empty if there is none."""
    path = f"{folder}/{DAMAGED}".lstrip("/")
    try:
        if storage.size(path) is None:
            return ""
        text = storage.read(path).decode(errors="replace")
    except FileNotFoundError:
        return ""
    # It is shown on terminals, which obey what is no text.
    shown = "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
    return shown.strip() or "nobody wrote down what it was"
