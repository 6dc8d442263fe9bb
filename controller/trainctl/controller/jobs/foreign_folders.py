"""Folders of other tenants' jobs: a job neither reads its state from there nor writes there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.jobs.checks import CHECKPOINT_PATH, RESULTS_PATH, RESUME_PATH
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import TrainJob
from trainctl.core.uris import local_path, one_spelling


def check_folders(job: TrainJob, states: Iterable[JobState], *, jobs_folder: Path) -> None:
    """Sees that a job names no folder of another tenant. What the processes of a job open by themselves nobody sees.

    Args:
        job: that is submitted.
        states: all jobs.
        jobs_folder: where every job's work folder lies.

    Raises:
        SpecError: it does; the same whether or not there is such a job.
    """
    states = tuple(states)
    tenant = job.metadata.tenant
    own = {state.uid for state in states if state.tenant == tenant}
    foreign = [place for state in states if state.tenant != tenant for place in _places(state)]
    problems = tuple(
        Problem(path=path, message=f"{uri} is not of tenant {tenant}")
        for path, uri in _named(job)
        if _is_foreign(uri, own, foreign, jobs_folder)
    )
    if problems:
        raise SpecError(problems, hint="name a folder of this tenant's jobs, or one of no job")


def _named(job: TrainJob) -> Iterator[tuple[str, str]]:
    checkpoint = job.spec.checkpoint
    yield CHECKPOINT_PATH, checkpoint.uri
    yield RESULTS_PATH, job.spec.results.uri
    if checkpoint.resume_from not in ("", "none", "latest"):
        yield RESUME_PATH, checkpoint.resume_from


def _places(state: JobState) -> Iterator[str]:
    yield from (uri for uri in (state.spec.spec.checkpoint.uri, state.spec.spec.results.uri) if uri)


def _is_foreign(uri: str, own: set[str], foreign: Iterable[str], jobs_folder: Path) -> bool:
    if not uri:
        return False
    path = local_path(uri)
    if path is None:
        return any(_within_uri(one_spelling(uri), one_spelling(other)) for other in foreign)
    resolved, folder = Path(path).expanduser().resolve(), jobs_folder.resolve()
    if resolved.is_relative_to(folder) and resolved != folder:
        return resolved.relative_to(folder).parts[0] not in own
    elsewhere = (other for one in foreign if (other := local_path(one)) is not None)
    return any(resolved.is_relative_to(Path(other).resolve()) for other in elsewhere)


def _within_uri(uri: str, other: str) -> bool:
    return f"{uri.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")
