"""Removes checkpoints that are no longer needed. A crash in the middle leaves garbage, never a lie. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from trainctl.checkpoint.attempts import storage_errors
from trainctl.checkpoint.catalog import CheckpointInfo, survey
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, attempt_folder
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage


def retain(uri: str, *, job: str, keep: int, protect: AbstractSet[str] = frozenset()) -> tuple[str, ...]:
    """Keeps the newest ``keep`` checkpoints of a job (at least one) and the protected ones; removes its others.

    "Newest" follows the chain of parents first, so a branch that was rolled back goes before what the job continues.
    Attempts that were interrupted at an earlier step than the newest checkpoint's are garbage and go, too. Other jobs'
    checkpoints are never touched.

    Args:
        uri: the folder that the job saves to.
        job: uid of the job.
        keep: how many to keep.
        protect: attempts that stay in any case, such as those being written or read.

    Returns:
        Folders that were removed, relative to ``uri``.

    Raises:
        CheckpointError: the storage refused; trying again later is safe.
    """
    storage = open_storage(uri)
    with storage_errors(f"removing old checkpoints from {uri}"):
        found = survey(uri)
        own = [info for info in found.checkpoints if info.manifest.job == job]
        if not own:
            return ()
        others = {info.manifest.job for info in found.checkpoints} - {job}
        doomed = [
            attempt_folder(info.ref.step, info.ref.attempt)
            for info in _by_need(own)[max(1, keep) :]
            if info.ref.attempt not in protect
        ]
        if not others:  # with others in the folder, an interrupted attempt may be theirs
            newest_step = own[0].ref.step
            doomed += [
                attempt_folder(step, attempt)
                for step, attempt in found.interrupted
                if step < newest_step and attempt not in protect
            ]
        for folder in doomed:
            remove_attempt(storage, folder)
    return tuple(doomed)


def remove_attempt(storage: Storage, folder: str) -> None:
    """Removes an attempt, its root manifest first: from then on it is no checkpoint. Nothing happens if it is gone."""
    storage.delete(f"{folder}/{ROOT_MANIFEST}")
    storage.delete(folder)
    storage.delete_if_empty(folder.partition("/")[0])


def _by_need(own: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
    """The chain of parents from the newest back, then the rest, newest first."""
    by_attempt = {info.ref.attempt: info for info in own}
    chain: list[CheckpointInfo] = []
    here: CheckpointInfo | None = own[0]
    while here is not None and here not in chain:
        chain.append(here)
        parent = here.manifest.parent
        here = by_attempt.get(parent.attempt) if parent else None
    return chain + [info for info in own if info not in chain]
