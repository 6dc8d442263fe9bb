"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, in a few words; the same in every run.
        status: how bad it is.
        message: what was found.
        remedy: what to do; empty if all is well.
    """

    check: str
    status: Status
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, status=Status.OK, message=message)


def warn(check: str, message: str, remedy: str) -> Finding:
    """It works, but not in every case, or not for long."""
    return Finding(check=check, status=Status.WARN, message=message, remedy=remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check=check, status=Status.FAIL, message=message, remedy=remedy)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.status is not Status.FAIL for finding in findings)
