"""Errors cross the wire unchanged.

Without it an error could lose its reason or hint on the way to the user.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

from trainctl.core import errors
from trainctl.protos.status import code_of, error_from_rpc, error_from_status, status_of, trailing_metadata


class FakeRpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str, trailing: object) -> None:
        self._values = (code, details, trailing)

    def code(self) -> grpc.StatusCode:
        return self._values[0]

    def details(self) -> str:
        return self._values[1]

    def trailing_metadata(self) -> Any:
        return self._values[2]


def crossed(error: errors.TrainctlError) -> errors.TrainctlError:
    return error_from_rpc(FakeRpcError(code_of(error), status_of(error).message, trailing_metadata(error)))


ALL = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, errors.TrainctlError)
    and cls not in (errors.TrainctlError, errors.SpecError)
]


@pytest.mark.parametrize("cls", ALL)
def test_class_code_message_and_hint_survive(cls: type[errors.TrainctlError]) -> None:
    back = crossed(cls("expected x, found ÿ", hint="do z"))
    assert (type(back), back.code, str(back), back.hint) == (cls, cls.code, "expected x, found ÿ", "do z")


def test_a_special_reason_keeps_its_name_and_the_nearest_class() -> None:
    class SpecialError(errors.PreconditionError):
        code = "VERY_SPECIAL"

    back = crossed(SpecialError("no"))
    assert (type(back), back.code, back.exit_code) == (errors.PreconditionError, "VERY_SPECIAL", 6)


def test_all_problems_of_a_spec_survive_with_their_places() -> None:
    problems = (
        errors.Problem(path="spec.a", message="bad", line=3, column=5),
        errors.Problem(path="b", message="worse"),
    )
    back = crossed(errors.SpecError(problems, source="job.yaml", hint="fix"))
    assert isinstance(back, errors.SpecError)
    assert (back.problems, back.source, back.hint) == (problems, "job.yaml", "fix")
    assert "job.yaml:3:5" in str(back)


@pytest.mark.parametrize("positions", ["[" * 9_000, "{", "[1]", '[[1, "a"]]', "[[1, 1e999]]", "7"])
def test_problems_survive_without_their_places(positions: str) -> None:
    problem = errors.Problem(path="spec.a", message="bad", line=3, column=5)
    status, info = status_of(errors.SpecError((problem,))), error_details_pb2.ErrorInfo()
    status.details[1].Unpack(info)
    info.metadata["positions"] = positions
    status.details[1].Pack(info)
    back = error_from_status(status, grpc.StatusCode.INVALID_ARGUMENT)
    assert isinstance(back, errors.SpecError)
    assert back.problems == (errors.Problem(path="spec.a", message="bad"),)


def test_very_many_problems_fit_into_what_a_peer_accepts() -> None:
    problems = tuple(errors.Problem(path=f"spec.field{i}", message="x" * 1000) for i in range(500))
    error = errors.SpecError(problems, source="job.yaml")
    assert len(trailing_metadata(error)[0][1]) < 6_000
    back = crossed(error)
    assert isinstance(back, errors.SpecError)
    assert "480 more" in back.problems[-1].message


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.UnavailableError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.PreconditionError),
        (grpc.StatusCode.DATA_LOSS, errors.InternalError),
    ],
)
def test_a_status_without_details_becomes_the_class_that_fits(
    code: grpc.StatusCode, cls: type[errors.TrainctlError]
) -> None:
    back = error_from_rpc(FakeRpcError(code, "connection refused", None))
    assert (type(back), back.code) == (cls, code.name)
    garbled = error_from_rpc(FakeRpcError(code, "x", (("grpc-status-details-bin", b"\xff\xff"),)))
    assert type(garbled) is cls
