"""From a text, or the API's message, to a checked ``TrainJob``: everything wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.controller.domain.spec.nodes import Node, from_plain
from trainctl.controller.domain.spec.overrides import apply_overrides
from trainctl.controller.domain.spec.rules import check
from trainctl.controller.domain.spec.schema import Shaper
from trainctl.controller.domain.spec.yaml_text import read_yaml
from trainctl.core.codec import from_wire
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob


def parse_job(text: str, *, source: str, overrides: Sequence[str] = ()) -> TrainJob:
    """Reads a job file.

    Args:
        text: YAML.
        source: its name, for messages.
        overrides: ``path=value`` texts that replace values of the file.

    Raises:
        SpecError: with every problem, its line and column, and the nearest right spelling.
    """
    root = apply_overrides(read_yaml(text, source=source), overrides)
    return _job(root, source)


def job_from_wire(data: Mapping[str, object], *, source: str = "", overrides: Sequence[str] = ()) -> TrainJob:
    """The same checks on the message of the API (its JSON form): problems have paths but no lines.

    Raises:
        SpecError: with every problem.
    """
    return _job(apply_overrides(from_plain(data), overrides), source)


def _job(root: Node, source: str) -> TrainJob:
    shaper = Shaper()
    shaped = shaper.shape(TrainJob, root)
    problems = list(shaper.problems)
    if "metadata" in shaped and "name" in shaped["metadata"]:
        job = from_wire(TrainJob, shaped)
        broken = {p.path for p in problems}
        problems += [p for p in check(job, shaper.positions) if p.path not in broken]
    if problems:
        raise SpecError(tuple(sorted(problems, key=lambda p: (p.line, p.column, p.path))), source=source)
    return job
