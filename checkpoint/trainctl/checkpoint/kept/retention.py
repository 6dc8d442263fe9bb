"""Removes checkpoints that are no longer needed. A crash in the middle leaves garbage, never a lie. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from trainctl.checkpoint.kept.catalog import CheckpointInfo, Survey, survey
from trainctl.checkpoint.kept.read_back import read_back
from trainctl.checkpoint.manifest.codec import TornManifestError
from trainctl.checkpoint.manifest.names import (
    PIN,
    ROOT_MANIFEST,
    attempt_folder,
    is_attempt,
    lineage_of,
    step_folder,
    step_of,
)
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef


def retain(
    uri: str,
    *,
    job: str,
    keep: int,
    current: str = "",
    protect: AbstractSet[str] = frozenset(),
    check: Callable[[CheckpointRef], None] = read_back,
) -> tuple[str, ...]:
    """Keeps the newest ``keep`` checkpoints of a job (at least one), pinned and protected ones; removes its others.

    Those that were found damaged do not count: they go when ``keep`` others are there. "Newest" follows the chain of
    parents first, so a branch that was rolled back goes before what the job continues. Attempts that were interrupted
    at an earlier step than the newest checkpoint's are garbage and go, too. So do those whose root manifest is torn,
    when ``keep`` others are there. What a newer version may have written stays. Other jobs' are never touched.

    With ``current``, only what is older than it is looked at, and nothing goes unless it is whole. Whatever the job
    saves later, in whatever lineage, is newer: so who acts late, or has been replaced, removes nothing of that.

    Where only one would be left of those that were not found damaged, every byte of it is read first: that files are
    there at full size says nothing of their bits.

    Args:
        uri: the folder that the job saves to.
        job: uid of the job.
        keep: how many to keep.
        current: attempt that the controller made current; empty: nobody decides but the files.
        protect: attempts that stay in any case, such as those being written or read.
        check: called with the one that would be left alone; raises if that is not what was saved.

    Returns:
        Folders that were removed, relative to ``uri``.

    Raises:
        DamagedCheckpointError: the one that would be left alone is damaged: nothing went.
        CheckpointError: the storage refused; trying again later is safe.
    """
    storage = open_storage(uri)
    with storage_errors(f"removing old checkpoints from {uri}"):
        found = survey(uri)
        own = [info for info in found.checkpoints if info.manifest.job == job]
        damaged = [info for info in found.damaged if info.manifest.job == job]
        if current:
            own, damaged = _up_to(current, own, damaged)
        if not own:
            return ()
        old = _no_longer_needed(own, damaged, max(1, keep))
        old = [info for info in old if info.ref.attempt not in protect and not _pinned(storage, _folder(info))]
        left = [info for info in own if info not in old]
        if len(left) == 1 < len(own):
            check(left[0].ref)
        doomed = [_folder(info) for info in old]
        if all(info.manifest.job == job for info in (*found.checkpoints, *found.damaged)):  # else it may be another's
            doomed += _garbage(storage, found, own[0].ref, protect, torn=len(own) >= keep, whoever=not current)
            for step in found.empty:  # whoever made it, or emptied it, was killed before the next call
                if step < own[0].ref.step:
                    storage.delete_if_empty(step_folder(step))
        for folder in doomed:
            remove_attempt(storage, folder)
    return tuple(doomed)


def forget(uri: str, *, job: str, protect: AbstractSet[str] = frozenset()) -> tuple[str, ...]:
    """Removes every attempt under ``uri`` whose manifest says that it is of ``job``; looks at nothing else.

    An attempt without a readable manifest says of nobody that it is theirs, and stays.

    Args:
        uri: the folder that the job saved to; other jobs, and people, may keep things in it.
        job: uid of the job.
        protect: attempts that stay in any case.

    Returns:
        Folders that were removed, relative to ``uri``.

    Raises:
        CheckpointError: the storage refused; trying again later is safe.
    """
    storage = open_storage(uri)
    removed: list[str] = []
    with storage_errors(f"removing the checkpoints of job {job} from {uri}"):
        for step in (name for name in storage.list("") if step_of(name) is not None):
            for attempt in filter(is_attempt, storage.list(step)):
                folder = f"{step}/{attempt}"
                if attempt not in protect and _job_of(storage, folder) == job:
                    remove_attempt(storage, folder)
                    removed.append(folder)
    return tuple(removed)


def discard(ref: CheckpointRef) -> None:
    """Removes the files of one checkpoint, pinned or not; nothing happens if they are gone.

    Raises:
        CheckpointError: the storage refused; trying again later is safe. Or the folder is not one of ours.
    """
    root, step, attempt = ref.uri.rsplit("/", 2)
    if step_of(step) is None or not is_attempt(attempt):
        raise CheckpointError(f"{ref.uri}: expected the folder of an attempt", hint="remove it by hand")
    with storage_errors(f"removing the checkpoint {ref.uri}"):
        remove_attempt(open_storage(root), f"{step}/{attempt}")


def holds_any(uri: str) -> bool:
    """Whether a checkpoint of anybody lies under ``uri``: an attempt whose manifest can be read."""
    storage = open_storage(uri)
    with storage_errors(f"looking for checkpoints in {uri}"):
        steps = [name for name in storage.list("") if step_of(name) is not None]
        return any(_job_of(storage, f"{step}/{attempt}") for step in steps for attempt in storage.list(step))


def _job_of(storage: Storage, folder: str) -> str:
    """The job that the root manifest names; empty where there is none that can be read."""
    try:
        return read_root(storage, folder)[0].job
    except CheckpointError:
        return ""


def remove_attempt(storage: Storage, folder: str) -> None:
    """Removes an attempt, its root manifest first: from then on it is no checkpoint. Nothing happens if it is gone."""
    storage.delete(f"{folder}/{ROOT_MANIFEST}")
    storage.delete(folder)
    storage.delete_if_empty(folder.partition("/")[0])


def _up_to(
    current: str, own: Sequence[CheckpointInfo], damaged: Sequence[CheckpointInfo]
) -> tuple[list[CheckpointInfo], list[CheckpointInfo]]:
    """What is not newer than the current one, which comes first; nothing where that is not whole."""
    here = next((info for info in own if info.ref.attempt == current), None)
    if here is None:
        return [], []
    place = (here.ref.lineage, here.ref.step)
    older, broken = ([i for i in infos if (i.ref.lineage, i.ref.step) <= place] for infos in (own, damaged))
    return [here, *(info for info in older if info is not here)], broken


def _folder(info: CheckpointInfo) -> str:
    return attempt_folder(info.ref.step, info.ref.attempt)


def _pinned(storage: Storage, folder: str) -> bool:
    return storage.size(f"{folder}/{PIN}") is not None


def _no_checkpoint(storage: Storage, folder: str) -> bool:
    """Whether an attempt has no root manifest, or a torn one, also when it is read again: bytes change on their way."""
    if storage.size(f"{folder}/{ROOT_MANIFEST}") is None:
        return True
    try:
        read_root(storage, folder)
    except TornManifestError:
        return True
    except CheckpointError:
        return False
    return False


def _garbage(
    storage: Storage, found: Survey, newest: CheckpointRef, protect: AbstractSet[str], *, torn: bool, whoever: bool
) -> list[str]:
    """Attempts that nobody completes any more; a later lineage begins further back, and is writing its own there."""
    folders = [
        attempt_folder(step, attempt)
        for step, attempt in (*found.interrupted, *(found.torn if torn else ()))
        if step < newest.step and attempt not in protect and (whoever or lineage_of(attempt) <= newest.lineage)
    ]
    return [folder for folder in folders if not _pinned(storage, folder) and _no_checkpoint(storage, folder)]


def _no_longer_needed(
    own: Sequence[CheckpointInfo], damaged: Sequence[CheckpointInfo], keep: int
) -> list[CheckpointInfo]:
    return [*_by_need(own, damaged)[keep:], *(damaged if len(own) >= keep else ())]


def _by_need(own: Sequence[CheckpointInfo], damaged: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
    """The chain of parents from the newest back, then the rest, newest first; damaged ones only hold the chain."""
    by_attempt = {info.ref.attempt: info for info in (*own, *damaged)}
    chain: list[CheckpointInfo] = []
    here: CheckpointInfo | None = own[0]
    while here is not None and here not in chain:
        chain.append(here)
        parent = here.manifest.parent
        here = by_attempt.get(parent.attempt) if parent else None
    whole = [info for info in chain if info in own]
    return whole + [info for info in own if info not in chain]
