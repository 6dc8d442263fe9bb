"""Errors as people see them.

Without it an error could come without what to do about it.
"""

from __future__ import annotations

import pytest

from trainctl.core.errors import (
    CheckpointError,
    CollectiveError,
    ConflictError,
    DataError,
    FencedError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    PlanError,
    PreconditionError,
    Problem,
    SpecError,
    StorageAwayError,
    StorageRefusedError,
    TrainctlError,
    UnavailableError,
    UsageError,
)


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


def test_a_person_is_told_the_message_with_its_code_and_what_to_do() -> None:
    assert UnavailableError("it is away:\nsince noon", hint="wait").lines == (
        "error: it is away: (UNAVAILABLE)",
        "since noon",
        "hint: wait",
    )
    assert StorageRefusedError("no").lines == ("error: no (STORAGE_REFUSED)",), "no empty hint"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SpecError, 2), (UsageError, 2), (NotFoundError, 3), (ConflictError, 4), (PermissionDeniedError, 5),
        (PreconditionError, 6), (FencedError, 6), (PlanError, 6), (CheckpointError, 6), (DataError, 6),
        (CollectiveError, 1), (InternalError, 1),
    ],
)  # fmt: skip
def test_scripts_find_the_exit_codes_that_they_know(kind: type[TrainctlError], code: int) -> None:
    assert kind.exit_code == code


def test_what_later_may_help_against_exits_with_one_code() -> None:
    assert StorageAwayError.exit_code == UnavailableError.exit_code == 7
    assert StorageRefusedError.exit_code != 7, "asking again does not help"
