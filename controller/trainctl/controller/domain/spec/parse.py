"""From a text, or the API's message, to a checked ``TrainJob``: everything wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set

from trainctl.controller.domain.spec.nodes import Node, from_plain
from trainctl.controller.domain.spec.overrides import named, set_values
from trainctl.controller.domain.spec.rules import check
from trainctl.controller.domain.spec.schema import Shaper
from trainctl.controller.domain.spec.yaml_text import HINT, compose
from trainctl.core.codec import from_wire
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import TrainJob

MAX_PROBLEMS = 50

_WORD = re.compile(r"[\w.]+")


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
    return _job(root, overrides, source, problems, Shaper())


def job_from_wire(data: Mapping[str, object], *, source: str = "", overrides: Sequence[str] = ()) -> TrainJob:
    """The same checks on the message of the API (its JSON form): problems have paths but no lines.

    Raises:
        SpecError: with every problem.
    """
    return _job(from_plain(data), overrides, source, (), Shaper(json_form=True))


def _first(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """As many as somebody reads; the last one says how many more there are."""
    left = len(problems) - MAX_PROBLEMS
    more = [Problem(path="", message=f"and {left} more problems")] if left > 1 else problems[MAX_PROBLEMS:]
    return (*problems[:MAX_PROBLEMS], *more)


def _job(root: Node, overrides: Sequence[str], source: str, known: tuple[Problem, ...], shaper: Shaper) -> TrainJob:
    root, unusable = set_values(root, overrides)
    shaped = shaper.shape(TrainJob, root)
    told = {(p.path, p.line, p.column) for p in known}
    problems = [*known, *unusable, *(p for p in shaper.problems if (p.path, p.line, p.column) not in told)]
    # A missing name is a problem already; all others are wanted at once.
    shaped.setdefault("metadata", {}).setdefault("name", "unnamed")
    job = from_wire(TrainJob, shaped)
    broken = {p.path for p in problems}
    found = (p for p in check(job, shaper.positions) if p.path not in broken)
    problems += [p for p in found if not _follows(p, shaper.doubtful)]
    if problems:
        ordered = sorted((named(p, overrides) for p in problems), key=lambda p: (p.line, p.column, p.path))
        raise SpecError(_first(ordered), source=source, hint=HINT)
    return job


def _follows(problem: Problem, doubtful: Set[str]) -> bool:
    """Whether a rule may have found this only because a default stands in for a value that is not known.

    Messages name the other fields they are about by path, or by name where those are neighbours.
    """
    words = {word.rstrip(".") for word in _WORD.findall(problem.message)}
    for path in doubtful:
        if path and f"{problem.path}.".startswith((f"{path}.", f"{path}[")):
            return True
        parent, _, name = path.rpartition(".")
        if not parent:
            continue
        if any(f"{word}.".startswith(f"{path}.") for word in words):
            return True
        if name in words and problem.path.startswith(f"{parent}."):
            return True
    return False
