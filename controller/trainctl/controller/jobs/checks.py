"""What only a look outside can tell of a spec: is the data there, can checkpoints be written, can that one be read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trainctl.controller.domain.spec.credentials import brings_credentials
from trainctl.controller.domain.submit import Resume
from trainctl.controller.jobs.data_checks import data_problems
from trainctl.controller.jobs.model_checks import folder_problems, resume_problems
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, Problem, SpecError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import TrainJob
from trainctl.core.uris import local_path, uri_problem

CHECKPOINT_PATH = "spec.checkpoint.uri"
RESULTS_PATH = "spec.results.uri"
RESUME_PATH = "spec.checkpoint.resumeFrom"
WORKDIR_PATH = "spec.launch.workdir"


def check_outside(job: TrainJob) -> Resume | None:
    """Looks at everything the job needs and returns the checkpoint it shall start from, if any. Blocks on the disk.

    Raises:
        SpecError: something is missing or unusable; lists all of it.
    """
    problems = [
        *(_workdir_problems(job) if job.spec.command else data_problems(job.spec.train)),
        *folder_problems(job),
        *_folder_problems(CHECKPOINT_PATH, job.spec.checkpoint.uri, job),
        *_folder_problems(RESULTS_PATH, job.spec.results.uri, job),
    ]
    resume: Resume | None = None
    try:
        resume = find_resume(job)
        if resume is not None and not job.spec.runs_command:
            _refuse_foreign(resume.ref)
        if resume is not None and not job.spec.command:
            problems += resume_problems(job, resume.ref)
    except CheckpointError as error:
        problems.append(Problem(path=RESUME_PATH, message=f"{error}" + (f" ({error.hint})" if error.hint else "")))
    problems += _nothing_left(job, resume.ref if resume is not None else None)
    if problems:
        raise SpecError(tuple(problems), hint="nothing was started")
    return resume


def _refuse_foreign(ref: CheckpointRef) -> None:
    """Raises: UnfitCheckpointError: no job can go on from it, whatever its model."""
    from trainctl.checkpoint.kept.origin import origin_of

    origin_of(ref)


def _nothing_left(job: TrainJob, resume: CheckpointRef | None) -> list[Problem]:
    """A job that starts behind its own end trains nothing."""
    steps = job.spec.train.steps
    if resume is None or resume.step < steps or job.spec.command:
        return []
    return [_problem(RESUME_PATH, f"{resume.uri} is of step {resume.step}, but spec.train.steps is {steps}: raise it")]


def find_resume(job: TrainJob) -> Resume | None:
    """The checkpoint that ``resumeFrom`` means.

    Raises:
        CheckpointError: it is missing, foreign, torn or ambiguous.
    """
    wanted, uri = job.spec.checkpoint.resume_from, job.spec.checkpoint.uri
    if wanted in ("", "none"):
        return None
    from trainctl.checkpoint.kept import catalog
    from trainctl.checkpoint.kept.damage import refuse_marked

    if wanted != "latest":
        named = catalog.resolve(wanted)
        refuse_marked(named)
        found: CheckpointRef | None = named
    else:
        found = catalog.newest(uri) if uri else None
        damaged = catalog.survey(uri).unusable if uri and found is None else ()
        if damaged:
            raise DamagedCheckpointError(
                "\n".join([f"{uri}: no checkpoint can be used, every one is damaged:", *damaged]),
                hint="restore the files of one of them from a copy, or begin at step 0 with resumeFrom: none",
            )
    if found is None or (wanted != "latest" and not catalog.is_root_of(wanted, found)):
        return Resume(ref=found) if found is not None else None
    skipped = (f"a newer checkpoint is passed over: {problem}" for problem in catalog.passed_over(found))
    return Resume(ref=found, older=catalog.older(found), passed_over=tuple(skipped))


def _workdir_problems(job: TrainJob) -> list[Problem]:
    """The folder of a command; whether each node has it, and the program, is seen there."""
    path = job.spec.launch.workdir
    if not path or os.path.isabs(path):
        return []
    return [_problem(WORKDIR_PATH, f"expected an absolute path, found {path!r}")]


def _folder_problems(field: str, uri: str, job: TrainJob) -> list[Problem]:
    """Whether a folder that the job writes to (empty: its own) can be written."""
    problem = uri_problem(uri)
    if problem:
        return [_problem(field, problem)]
    path = local_path(uri)
    if path is None:
        return _storage_problems(field, uri, own_credentials=brings_credentials(job))
    if not path:
        return []
    if not os.path.isabs(path):
        return [_problem(field, f"expected an absolute path or a URL, found {uri!r}")]
    existing = next(folder for folder in (Path(path), *Path(path).parents) if os.path.exists(folder))
    if not existing.is_dir():
        return [_problem(field, f"{existing} is not a folder")]
    try:
        with tempfile.TemporaryFile(dir=existing):
            return []
    except OSError as error:
        return [_problem(field, f"{existing} cannot be written by this user: {error.strerror}")]


def _storage_problems(field: str, uri: str, *, own_credentials: bool) -> list[Problem]:
    """Whether a storage somewhere else can be written from here; where the job reaches it otherwise, be opened."""
    from trainctl.checkpoint.storage.opening import open_storage
    from trainctl.checkpoint.storage.probe import probe

    try:
        open_storage(uri)
    except CheckpointError as error:
        return [_problem(field, f"{error} ({error.hint})")]
    found = {} if own_credentials else probe(uri, write=True)
    hint = f" ({found['hint']})" if found.get("hint") else ""
    return [_problem(field, f"{found['error']}{hint}")] if found else []


def _problem(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
