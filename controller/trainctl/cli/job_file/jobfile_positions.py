"""What the controller finds wrong with a job has a path, but no line: it never saw the file. Here it gets one."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.controller.domain.spec.overrides import named, set_values
from trainctl.controller.domain.spec.schema import Shaper
from trainctl.controller.domain.spec.yaml_text import compose
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob


def with_positions(error: SpecError, *, text: str, source: str, overrides: Sequence[str] = ()) -> SpecError:
    """The same error with the line and column of each problem in ``text``, the job file called ``source``.

    What the ``overrides`` of the command line set has no position.
    """
    root, _ = compose(text, source=source)
    root, _ = set_values(root, overrides)
    shaper = Shaper()
    shaper.shape(TrainJob, root)
    problems = tuple(p if p.line else shaper.positions.problem(p.path, p.message) for p in error.problems)
    problems = tuple(named(p, overrides) for p in problems)
    return SpecError(problems, source=source, hint=error.hint)
