"""What an ended job left on disk and storage, and how it is removed: its own, and nothing else. Blocks on the disk.

A job's work folder is its own; but other jobs may have been told to save into it, and it may have been told to save
into a folder of the user's. So checkpoints go one by one, each by what its manifest says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.errors import PreconditionError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.uris import local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is to be removed, and what must stay.

    Attributes:
        job: uid of the job.
        workdir: its work folder; None if it is not where jobs' folders are.
        checkpoints: folder or URI that it saved to; empty if they stay.
        protect: attempts that living jobs began from.
        keep: paths in the work folder that are not the job's, or are to stay.
    """

    job: str
    workdir: Path | None
    checkpoints: str
    protect: frozenset[str]
    keep: tuple[Path, ...]


def checkpoint_uri(state: JobState) -> str:
    """Where a job saves."""
    return state.spec.spec.checkpoint.uri or f"{state.workdir}/checkpoints"


def remains_of(state: JobState, others: Iterable[JobState], *, jobs_folder: Path) -> Remains:
    """What there is to remove of a job.

    Args:
        state: of the job.
        others: all other jobs.
        jobs_folder: where every job's work folder lies.
    """
    others = tuple(others)
    kept = state.deletion is not None and state.deletion.keep_checkpoints
    workdir = Path(state.workdir)
    own = state.uid not in ("", ".", "..") and workdir == jobs_folder / state.uid
    foreign = [
        Path(path)
        for other in others
        for uri in (other.spec.spec.checkpoint.uri, other.spec.spec.results.uri)
        if (path := local_path(uri))
    ]
    keep = [path for path in foreign if path.resolve().is_relative_to(workdir.resolve())]
    if kept:
        keep.append(workdir / "checkpoints")
    return Remains(
        job=state.uid,
        workdir=workdir if own else None,
        checkpoints="" if kept else checkpoint_uri(state),
        protect=frozenset(o.resume.attempt for o in others if o.resume is not None and o.phase not in TERMINAL),
        keep=tuple(keep),
    )


def refuse_if_needed(refs: Iterable[CheckpointRef], others: Iterable[JobState], *, instead: str = "") -> None:
    """A living job that began from one of these checkpoints may have to go back to it.

    Args:
        refs: those that are to go.
        others: all jobs but the one whose they are.
        instead: what else could be done, beside waiting.

    Raises:
        PreconditionError: there is one.
    """
    own = {ref.attempt for ref in refs}
    for other in others:
        if other.resume is not None and other.resume.attempt in own and other.phase not in TERMINAL:
            raise PreconditionError(
                f"job {other.name} began from {other.resume.uri} and may have to go back to it",
                hint=f"{instead}wait until that job has ended",
            )


def remove(remains: Remains) -> None:
    """Removes it; what is gone already is no error, so that it can be tried again.

    Raises:
        CheckpointError, OSError: the storage or the disk refused.
    """
    keep = list(remains.keep)
    if remains.checkpoints:
        from trainctl.checkpoint.kept.retention import forget, holds_any

        forget(remains.checkpoints, job=remains.job, protect=remains.protect)
        own = remains.workdir / "checkpoints" if remains.workdir is not None else None
        if own is not None and own.is_dir() and holds_any(str(own)):
            keep.append(own)
    if remains.workdir is not None:
        _remove_tree(remains.workdir, [path.resolve() for path in keep])


def _remove_tree(path: Path, keep: list[Path]) -> None:
    """Removes a file, a link (never what it leads to) or a folder, but not what is to be kept, or leads there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    here = path.resolve()
    if here in keep:
        return
    if not any(kept.is_relative_to(here) for kept in keep):
        shutil.rmtree(path)
        return
    for entry in list(path.iterdir()):
        _remove_tree(entry, keep)
