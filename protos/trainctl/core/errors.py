"""Every error this project raises on purpose, in one tree.

::

    TrainctlError                      what was expected, what was found, what to do
    ├── SpecError                      the user's job file is wrong; lists every problem with its position
    ├── NotFoundError                  the named thing does not exist
    ├── ConflictError                  somebody else holds the name, the key or the revision
    ├── PreconditionError              the thing exists but is in the wrong state for this
    ├── PermissionDeniedError          the file, folder or call is not allowed to this user
    ├── UnavailableError               the other side is away, busy or late: exit code 7, trying again may help
    ├── FencedError                    this process is no longer the one that may do this
    ├── PlanError                      the request cannot be laid out on these resources
    ├── CheckpointError                a checkpoint is missing, foreign, torn or corrupt
    │   ├── DamagedCheckpointError     its bytes are not those that were saved: an older one may do
    │   ├── UnfitCheckpointError       it is whole, but of another model
    │   ├── StorageRefusedError        the storage says no, and would say so again
    │   └── StorageAwayError           the storage does not answer as it should: exit code 7 as well
    ├── DataError                      the training data is missing or unusable
    ├── CollectiveError                a collective failed or was abandoned; names operation and missing ranks
    └── InternalError                  a broken invariant: a bug of ours
"""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.core.texts import printable


class TrainctlError(Exception):
    """Base of all deliberate errors.

    Attributes:
        code: stable, documented reason such as ``SPEC_INVALID``; it becomes ``ErrorInfo.reason`` on the wire.
        exit_code: what the command line exits with (table in docs/cli.md).
        hint: what the person can do next, or an empty string.
        request_id: of the call that the controller refused with this error; empty if it did not come from there.
        cause: code of the error behind this one, whose hint it then passes on; empty if there is none.
    """

    code = "INTERNAL"
    exit_code = 1
    request_id = ""
    cause = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # for a plain traceback, in a program that runs without trainctl

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person is told: the message, with the code in its first line, and the hint if there is one."""
        first, *rest = str(self).split("\n")
        return (f"error: {first} ({self.code})", *rest, *([f"hint: {self.hint}"] if self.hint else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in an input: where, what, and the nearest right spelling if there is one.

    Attributes:
        path: dotted field path such as ``spec.nodes.min``.
        message: what was expected and what was found.
        line: 1-based line in the file, 0 when unknown.
        column: 1-based column in the file, 0 when unknown.
    """

    path: str
    message: str
    line: int = 0
    column: int = 0


class SpecError(TrainctlError):
    """The job file is invalid; carries all problems at once."""

    code = "SPEC_INVALID"
    exit_code = 2

    def __init__(self, problems: tuple[Problem, ...], *, source: str = "", hint: str = "") -> None:
        self.problems = problems
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{source or 'job spec'} is invalid ({count})"]
        for p in problems:
            where = f"{source}:{p.line}:{p.column}  " if p.line else ""
            text = f"  {where}{p.path}: {p.message}" if p.path else f"  {where}{p.message}"
            lines += [printable(line) for line in text.replace("\n", "\n    ").split("\n")]
        super().__init__("\n".join(lines), hint=hint)


class UsageError(TrainctlError):
    """The command line was used wrongly."""

    code = "USAGE"
    exit_code = 2


class NotFoundError(TrainctlError):
    """The named thing does not exist."""

    code = "NOT_FOUND"
    exit_code = 3


class ConflictError(TrainctlError):
    """The name is taken or the revision moved."""

    code = "CONFLICT"
    exit_code = 4


class PermissionDeniedError(TrainctlError):
    """The caller may not do this, or the file system refuses."""

    code = "PERMISSION_DENIED"
    exit_code = 5


class PreconditionError(TrainctlError):
    """The thing exists but is not in a state that allows this."""

    code = "FAILED_PRECONDITION"
    exit_code = 6


class UnavailableError(TrainctlError):
    """The other side is away, busy or late; trying again may help.

    Attributes:
        retry_after_s: when the other side wants to be asked again; 0: it did not say.
    """

    code = "UNAVAILABLE"
    exit_code = 7

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class FencedError(TrainctlError):
    """A newer leader, generation or incarnation exists; this process must stop acting."""

    code = "FENCED"
    exit_code = 6


class PlanError(TrainctlError):
    """The request cannot be laid out on these resources."""

    code = "PLAN_IMPOSSIBLE"
    exit_code = 6


class CheckpointError(TrainctlError):
    """A checkpoint is missing, foreign, torn or corrupt."""

    code = "CHECKPOINT_UNUSABLE"
    exit_code = 6


class DamagedCheckpointError(CheckpointError):
    """Bytes of a checkpoint are missing or are not those that were saved; an older one may be whole.

    Attributes:
        uri: folder of the checkpoint; empty where it is not known.
    """

    code = "CHECKPOINT_DAMAGED"

    def __init__(self, message: str, *, hint: str = "", uri: str = "") -> None:
        super().__init__(message, hint=hint)
        self.uri = uri


class UnfitCheckpointError(CheckpointError):
    """A checkpoint is whole, but of a state with other names, shapes or types.

    Attributes:
        differences: all of them, a line each; the message has the first few hundred. Empty where they are not known.
    """

    code = "CHECKPOINT_UNFIT"

    def __init__(self, message: str, *, hint: str = "", differences: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.differences = differences


class StorageRefusedError(CheckpointError):
    """A storage says no: no permission, no such bucket, no space, no driver for its URI. Asking again does not help."""

    code = "STORAGE_REFUSED"


class StorageAwayError(CheckpointError):
    """The storage of checkpoints does not answer, or not as it should; what is on it may be whole."""

    code = "STORAGE_AWAY"
    exit_code = UnavailableError.exit_code


class DataError(TrainctlError):
    """The training data is missing or unusable."""

    code = "DATA_UNUSABLE"
    exit_code = 6


class CollectiveError(TrainctlError):
    """A collective failed, timed out or was abandoned."""

    code = "COLLECTIVE_FAILED"
    exit_code = 1


class InternalError(TrainctlError):
    """An invariant of ours is broken: please report it."""

    code = "INTERNAL"
    exit_code = 1
