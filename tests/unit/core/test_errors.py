"""Errors as people see them.

Without it an error could come without what to do about it.
"""

from __future__ import annotations

from trainctl.core.errors import Problem, SpecError


def test_a_problem_of_several_lines_keeps_them_and_nothing_a_terminal_would_obey() -> None:
    first = Problem(
        path="spec.a", message="incomplete:\none.bin is missing\n\x1b[31mtwo.bin is missing", line=3, column=5
    )
    text = str(SpecError((first, Problem(path="spec.b", message="wrong")), source="job.yaml"))
    assert text.splitlines() == [
        "job.yaml is invalid (2 problems)",
        "  job.yaml:3:5  spec.a: incomplete:",
        "    one.bin is missing",
        "    \\x1b[31mtwo.bin is missing",
        "  spec.b: wrong",
    ]
