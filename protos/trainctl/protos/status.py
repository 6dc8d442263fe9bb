"""The one table between our errors and gRPC statuses, used by the server and by every client.

On the wire an error is a ``google.rpc.Status`` with ``ErrorInfo{reason=code, domain="trainctl", metadata={hint}}``; a
``SpecError`` adds ``BadRequest.field_violations``, and a wait that the server asks for ``RetryInfo``. The code of an
error behind it, where there is one, is in ``metadata{cause}``.
Source: google.aip.dev 193.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from trainctl.core import errors
from trainctl.core.units import format_count

DOMAIN = "trainctl"
STATUS_DETAILS_KEY = "grpc-status-details-bin"

MAX_MESSAGE_CHARACTERS = 2000
MAX_PROBLEMS = 20
MAX_PROBLEM_CHARACTERS = 3600
"""An error travels as trailing metadata, of which a peer accepts 8 KiB."""

Code = grpc.StatusCode

_CODE_BY_CLASS: Mapping[type[errors.TrainctlError], grpc.StatusCode] = {
    errors.SpecError: Code.INVALID_ARGUMENT,
    errors.UsageError: Code.INVALID_ARGUMENT,
    errors.NotFoundError: Code.NOT_FOUND,
    errors.ConflictError: Code.ALREADY_EXISTS,
    errors.PermissionDeniedError: Code.PERMISSION_DENIED,
    errors.PreconditionError: Code.FAILED_PRECONDITION,
    errors.UnavailableError: Code.UNAVAILABLE,
    errors.FencedError: Code.FAILED_PRECONDITION,
    errors.PlanError: Code.FAILED_PRECONDITION,
    errors.CheckpointError: Code.FAILED_PRECONDITION,
    errors.DamagedCheckpointError: Code.FAILED_PRECONDITION,
    errors.UnfitCheckpointError: Code.FAILED_PRECONDITION,
    errors.StorageRefusedError: Code.FAILED_PRECONDITION,
    # Not UNAVAILABLE: a client would ask another controller, which meets the same storage.
    errors.StorageAwayError: Code.FAILED_PRECONDITION,
    errors.DataError: Code.FAILED_PRECONDITION,
    errors.CollectiveError: Code.INTERNAL,
    errors.TrainctlError: Code.INTERNAL,
}
"""The nearest class in an error's ancestry decides."""

_CODE_BY_REASON: Mapping[str, grpc.StatusCode] = {
    "UNAUTHENTICATED": Code.UNAUTHENTICATED,
    "REVISION_MOVED": Code.ABORTED,
    "COMPACTED": Code.OUT_OF_RANGE,
    "RESOURCE_VERSION_EXPIRED": Code.OUT_OF_RANGE,
    "STORE_FULL": Code.RESOURCE_EXHAUSTED,
    "RATE_LIMITED": Code.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": Code.DEADLINE_EXCEEDED,
}
"""Reasons whose status differs from that of their class."""

_CLASS_BY_CODE: Mapping[grpc.StatusCode, type[errors.TrainctlError]] = {
    Code.INVALID_ARGUMENT: errors.UsageError,
    Code.NOT_FOUND: errors.NotFoundError,
    Code.ALREADY_EXISTS: errors.ConflictError,
    Code.ABORTED: errors.ConflictError,
    Code.PERMISSION_DENIED: errors.PermissionDeniedError,
    Code.UNAUTHENTICATED: errors.PermissionDeniedError,
    Code.FAILED_PRECONDITION: errors.PreconditionError,
    Code.OUT_OF_RANGE: errors.PreconditionError,
    Code.RESOURCE_EXHAUSTED: errors.UnavailableError,
    Code.UNAVAILABLE: errors.UnavailableError,
    Code.DEADLINE_EXCEEDED: errors.UnavailableError,
    Code.CANCELLED: errors.UnavailableError,
    Code.UNIMPLEMENTED: errors.PreconditionError,
}

_CLASS_BY_REASON: Mapping[str, type[errors.TrainctlError]] = {
    cls.code: cls for cls in _CODE_BY_CLASS if cls not in (errors.TrainctlError, errors.SpecError)
}

_HINTS: Mapping[grpc.StatusCode, str] = {
    Code.UNAVAILABLE: "is the controller running? `trainctl local status` tells, `trainctl local up` starts one",
    Code.UNIMPLEMENTED: "the controller is older than this client; `trainctl version` shows both",
}


def code_of(error: errors.TrainctlError) -> grpc.StatusCode:
    """The gRPC status code an error travels under."""
    if error.code in _CODE_BY_REASON:
        return _CODE_BY_REASON[error.code]
    return next(_CODE_BY_CLASS[cls] for cls in type(error).__mro__ if cls in _CODE_BY_CLASS)


def status_of(error: errors.TrainctlError) -> status_pb2.Status:
    """The rich status of an error: code, message, reason, hint and field violations."""
    code: int = code_of(error).value[0]
    status = status_pb2.Status(code=code, message=_cut(str(error), MAX_MESSAGE_CHARACTERS))
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata={"hint": error.hint})
    if error.cause:
        info.metadata["cause"] = error.cause
    if isinstance(error, errors.SpecError):
        problems = _first(error.problems)
        room = MAX_PROBLEM_CHARACTERS // max(1, len(problems))
        status.message = f"{error.source or 'job spec'} is invalid ({format_count(len(error.problems), 'problem')})"
        info.metadata["source"] = error.source
        info.metadata["positions"] = json.dumps([[p.line, p.column] for p in problems])
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=p.path, description=_cut(p.message, room))
            for p in problems
        ]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    status.details.add().Pack(info)
    if isinstance(error, errors.UnavailableError) and error.retry_after_s > 0:
        wait = error_details_pb2.RetryInfo()
        wait.retry_delay.FromMicroseconds(round(error.retry_after_s * 1e6))
        status.details.add().Pack(wait)
    return status


def trailing_metadata(error: errors.TrainctlError) -> tuple[tuple[str, bytes], ...]:
    """What a server sends behind an aborted call, so that ``error_from_rpc`` can rebuild the error."""
    return ((STATUS_DETAILS_KEY, status_of(error).SerializeToString()),)


def error_from_rpc(error: grpc.RpcError) -> errors.TrainctlError:
    """Rebuilds the error a call ended with, from a blocking or an asyncio client.

    Statuses without our details (connection refused, deadline) become the class that fits their code.
    """
    code = error.code()
    details = str(error.details() or code.name.lower().replace("_", " "))
    status = _rich_status(error)
    if status is None:
        plain = _CLASS_BY_CODE.get(code, errors.InternalError)(details, hint=_HINTS.get(code, ""))
        plain.code = code.name
        return plain
    return error_from_status(status, code)


def is_from_server(error: grpc.RpcError) -> bool:
    """Whether somebody of ours sent it; otherwise it says what gRPC met on the way."""
    return _rich_status(error) is not None


def error_from_status(status: status_pb2.Status, code: grpc.StatusCode) -> errors.TrainctlError:
    """Rebuilds an error from its rich status."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    wait = error_details_pb2.RetryInfo()
    for detail in status.details:
        # `or` stops at the first message type that fits.
        _ = detail.Unpack(info) or detail.Unpack(bad_request) or detail.Unpack(wait)
    hint = info.metadata.get("hint", "")
    if info.reason == errors.SpecError.code:
        problems = tuple(_problems(bad_request, info.metadata.get("positions", "")))
        return errors.SpecError(problems, source=info.metadata.get("source", ""), hint=hint)
    cls = _CLASS_BY_REASON.get(info.reason) or _CLASS_BY_CODE.get(code, errors.InternalError)
    rebuilt = cls(status.message, hint=hint)
    rebuilt.code = info.reason or code.name
    rebuilt.cause = info.metadata.get("cause", "")
    if isinstance(rebuilt, errors.UnavailableError):
        rebuilt.retry_after_s = wait.retry_delay.ToMicroseconds() / 1e6
    return rebuilt


def _first(problems: tuple[errors.Problem, ...]) -> tuple[errors.Problem, ...]:
    left = len(problems) - MAX_PROBLEMS
    if left <= 0:
        return problems
    return (*problems[:MAX_PROBLEMS], errors.Problem(path="", message=f"and {left} more problems"))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _problems(bad_request: error_details_pb2.BadRequest, positions: str) -> Iterator[errors.Problem]:
    places = _places(positions)
    for index, violation in enumerate(bad_request.field_violations):
        line, column = places[index] if index < len(places) else (0, 0)
        yield errors.Problem(path=violation.field, message=violation.description, line=line, column=column)


def _places(positions: str) -> Sequence[tuple[int, int]]:
    """Line and column of each problem; none where that is not what the peer sent, for the problems matter more."""
    try:
        return [(int(line), int(column)) for line, column in json.loads(positions)] if positions else []
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    # Blocking and asyncio calls type their metadata differently; both iterate as pairs.
    pairs: Any = error.trailing_metadata() or ()
    for key, value in pairs:
        if key == STATUS_DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
