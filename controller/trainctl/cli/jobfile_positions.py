"""What the controller finds wrong with a job has a path, but no line: it never saw the file. Here it gets one."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.spec.nodes import Node, Positions
from trainctl.controller.domain.spec.yaml_text import compose
from trainctl.core.errors import SpecError


def with_positions(error: SpecError, *, text: str, source: str) -> SpecError:
    """The same error with the line and column of each problem in ``text``, the job file called ``source``."""
    root, _ = compose(text, source=source)
    positions = Positions()
    _collect(root, "", positions)
    problems = tuple(p if p.line else positions.problem(p.path, p.message) for p in error.problems)
    return SpecError(problems, source=source, hint=error.hint)


def _collect(node: Node, path: str, positions: Positions) -> None:
    positions.by_path[path] = (node.line, node.column)
    if isinstance(node.value, Mapping):
        for name, entry in node.value.items():
            _collect(entry.value, f"{path}.{name}" if path else name, positions)
