"""Paths in a job file: relative ones mean something here, but not where the controller and the workers run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from trainctl.cli.grammar.words import is_text
from trainctl.core.errors import UsageError
from trainctl.core.records.spec import TrainJob
from trainctl.core.records.train_spec import TrainSpec
from trainctl.core.texts import quoted
from trainctl.core.uris import uri_problem

_NAMES = frozenset({"", "none", "latest", "python-stdlib"})
"""Values that are words of the job file, not paths."""
_SEARCHED = frozenset({"PYTHONPATH"})
"""Variables of ``spec.env`` that list folders."""


def with_absolute_paths(job: TrainJob, *, here: Path) -> TrainJob:
    """The job with local paths made absolute, seen from the folder ``here``; URLs and names stay as they are.

    Raises:
        UsageError: one is no text, and so cannot stand in a job.
    """
    checkpoint, train = job.spec.checkpoint, _train(job.spec.train, here)
    saved = replace(
        checkpoint, uri=_absolute(checkpoint.uri, here), resume_from=_absolute(checkpoint.resume_from, here)
    )
    results = replace(job.spec.results, uri=_absolute(job.spec.results.uri, here))
    launch = replace(job.spec.launch, workdir=_absolute(job.spec.launch.workdir, here))
    env = {name: _search(value, here) if name in _SEARCHED else value for name, value in job.spec.env.items()}
    used = (saved.uri, saved.resume_from, results.uri, launch.workdir, train.tokenizer.path, train.data.uri)
    places = [*used, *(source.uri for source in train.data.sources), *env.values()]
    wrong = next((place for place in places if not is_text(place)), None)
    if wrong is not None:
        raise UsageError(
            f"this path is not UTF-8, so no job can name it: {quoted(wrong)}",
            hint="rename the folder; or use absolute paths in the job file if it is only the folder that you are in",
        )
    spec = replace(job.spec, train=train, checkpoint=saved, results=results, launch=launch, env=env)
    return replace(job, spec=spec)


def _train(train: TrainSpec, here: Path) -> TrainSpec:
    data, tokenizer = train.data, train.tokenizer
    sources = tuple(replace(source, uri=_absolute(source.uri, here)) for source in data.sources)
    return replace(
        train,
        data=replace(data, uri=_absolute(data.uri, here), sources=sources),
        tokenizer=replace(tokenizer, path=_absolute(tokenizer.path, here)),
    )


def _search(folders: str, here: Path) -> str:
    """A list of folders as ``PATH`` is one; an empty entry, the folder that the program runs in, stays."""
    return os.pathsep.join(str(here / Path(each).expanduser()) if each else each for each in folders.split(os.pathsep))


def _absolute(uri: str, here: Path) -> str:
    if uri in _NAMES or "://" in uri or "::" in uri or uri_problem(uri):
        return uri
    return str(here / Path(uri).expanduser())
