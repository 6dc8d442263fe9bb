"""From a text, or the API's message, to a checked ``TrainJob``: everything wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.controller.domain.spec.nodes import Node, from_plain
from trainctl.controller.domain.spec.overrides import set_values
from trainctl.controller.domain.spec.rules import check
from trainctl.controller.domain.spec.schema import Shaper
from trainctl.controller.domain.spec.yaml_text import HINT, compose
from trainctl.core.codec import from_wire
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import TrainJob

MAX_PROBLEMS = 50


def parse_job(text: str, *, source: str, overrides: Sequence[str] = ()) -> TrainJob:
    """Reads a job file.

    Args:
        text: YAML.
        source: its name, for messages.
        overrides: ``path=value`` texts that replace values of the file.

    Raises:
        SpecError: with every problem, its line and column, and the nearest right spelling.
    """
    root, problems = compose(text, source=source)
    return _job(set_values(root, overrides), source, problems)


def job_from_wire(data: Mapping[str, object], *, source: str = "", overrides: Sequence[str] = ()) -> TrainJob:
    """The same checks on the message of the API (its JSON form): problems have paths but no lines.

    Raises:
        SpecError: with every problem.
    """
    return _job(set_values(from_plain(_without_empty_lists(data)), overrides), source, ())


def _first(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """As many as somebody reads; the last one says how many more there are."""
    left = len(problems) - MAX_PROBLEMS
    more = [Problem(path="", message=f"and {left} more problems")] if left > 1 else problems[MAX_PROBLEMS:]
    return (*problems[:MAX_PROBLEMS], *more)


def _without_empty_lists(data: object) -> object:
    """In protobuf's JSON form an empty list is a field that was not set."""
    if isinstance(data, Mapping):
        return {key: _without_empty_lists(value) for key, value in data.items() if value != []}
    return data


def _job(root: Node, source: str, known: tuple[Problem, ...]) -> TrainJob:
    shaper = Shaper()
    shaped = shaper.shape(TrainJob, root)
    problems = [*known, *shaper.problems]
    if "metadata" in shaped and "name" in shaped["metadata"]:
        job = from_wire(TrainJob, shaped)
        broken = {p.path for p in problems}
        problems += [p for p in check(job, shaper.positions) if p.path not in broken]
    if problems:
        ordered = sorted(problems, key=lambda p: (p.line, p.column, p.path))
        raise SpecError(_first(ordered), source=source, hint=HINT)
    return job
