"""When a storage is asked again, and what it said: pure decisions, and calls on a clock of their own.

Without it a short trouble of a storage could cost a checkpoint, or a long one hang the job.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.failures import StorageSaysNoError, failure_of
from trainctl.checkpoint.storage.patience import Patience
from trainctl.core.clock import ManualClock

BUSY = StorageSaysNoError(errno.EBUSY, "s3://b/x: SlowDown", again=True, hint="wait")


@given(st.integers(1, 200), st.floats(0, 1000), st.floats(0, 0.999))
def test_a_wait_doubles_up_to_a_bound_and_never_passes_the_deadline(tries: int, spent_s: float, chance: float) -> None:
    patience = Patience()
    wait_s = patience.wait_s(tries, spent_s, chance)
    ceiling_s = min(patience.longest_s, patience.first_s * 2 ** min(tries - 1, 30))
    if wait_s is None:
        assert spent_s + ceiling_s >= patience.deadline_s
    else:
        assert ceiling_s / 2 <= wait_s <= ceiling_s
        assert spent_s + wait_s < patience.deadline_s


def test_those_that_failed_together_do_not_come_back_together() -> None:
    waits = {Patience().wait_s(3, 0.0, chance / 10) for chance in range(10)}
    assert len(waits) == 10


class Scripted:
    """An action that fails as told, then returns."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.told: list[bool] = []

    def __call__(self, again: bool) -> str:
        self.told.append(again)
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def calls(patience: Patience | None = None) -> tuple[Calls, list[float]]:
    clock, waited = ManualClock(), []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    return Calls(patience, clock=clock, sleep=sleep, chance=lambda: 0.5), waited


def test_what_passes_is_tried_again_and_told_so() -> None:
    caller, waited = calls()
    action = Scripted(BUSY, ConnectionResetError("gone"))
    assert caller.call("writing x", action) == "done"
    assert action.told == [False, True, True]
    assert waited == [pytest.approx(0.15), pytest.approx(0.3)]


def test_what_lasts_is_said_at_once() -> None:
    caller, waited = calls()
    with pytest.raises(StorageSaysNoError, match="writing x: ") as caught:
        caller.call("writing x", Scripted(PermissionError(13, "no")))
    assert (caught.value.errno, caught.value.again, waited) == (errno.EACCES, False, [])


@pytest.mark.parametrize("kind", [FileNotFoundError, FileExistsError])
def test_what_is_no_failure_of_the_storage_keeps_its_kind(kind: type[OSError]) -> None:
    caller, waited = calls()
    with pytest.raises(kind):
        caller.call("reading x", Scripted(kind("x")))
    assert not waited


def test_there_is_an_end_and_it_says_how_often_it_was_tried() -> None:
    caller, waited = calls(Patience(deadline_s=30.0))
    with pytest.raises(StorageSaysNoError, match=r"SlowDown \(tried \d+ times in 2\d s\)") as caught:
        caller.call("writing x", Scripted(*[BUSY] * 100))
    assert 20 < sum(waited) < 30
    assert caught.value.hint == "wait"


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    never = threading.Event()
    caller, waited = calls(Patience(deadline_s=1.0, answer_s=0.05, first_s=0.4))
    try:
        with pytest.raises(StorageSaysNoError, match="reading x: no answer within 0 s"):
            caller.call("reading x", lambda again: never.wait())
    finally:
        never.set()
    assert waited


def test_a_large_body_has_more_time() -> None:
    assert Patience(answer_s=1.0, slowest_bytes_per_s=100).limit_s(1000) == 11.0


class ClientError(Exception):
    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class EndpointConnectionError(Exception):
    pass


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "number", "again", "hint"),
    [
        (ClientError("SlowDown", 503), errno.EBUSY, True, "trouble"),
        (ClientError("InternalError", 500), errno.EBUSY, True, "trouble"),
        (ClientError("Unheard", 429), errno.EBUSY, True, "trouble"),
        (ClientError("NoSuchBucket", 404), errno.ENODEV, False, "make the bucket"),
        (ClientError("SignatureDoesNotMatch", 403), errno.EACCES, False, "wrong or have expired"),
        (ClientError("AccessDenied", 403), errno.EACCES, False, "lack a right"),
        (ClientError("PermanentRedirect", 301), errno.ENODEV, False, "region"),
        (EndpointConnectionError("Could not connect"), errno.EHOSTUNREACH, True, "AWS_ENDPOINT_URL"),
        (NoCredentialsError("Unable to locate credentials"), errno.EACCES, False, "AWS_ACCESS_KEY_ID"),
        (TimeoutError(), errno.ETIMEDOUT, True, "network"),
        (ConnectionResetError(104, "reset"), errno.ETIMEDOUT, True, "network"),
        (OSError(errno.EBUSY, "busy"), errno.EBUSY, True, ""),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC, False, ""),
        (PermissionError("Forbidden"), errno.EACCES, False, "lack a right"),
        (ValueError("odd"), errno.EIO, False, ""),
    ],
)
def test_what_drivers_raise_is_told_apart(error: Exception, number: int, again: bool, hint: str) -> None:
    found = failure_of(error, "reading s3://b/x")
    assert isinstance(found, StorageSaysNoError)
    assert (found.errno, found.again) == (number, again)
    assert hint in found.hint
    assert str(found).startswith("reading s3://b/x: ")


def test_a_cause_that_a_driver_hides_behind_a_missing_file_is_found() -> None:
    def ask(kind: Callable[[str], Exception]) -> OSError:
        try:
            try:
                raise ClientError("NoSuchBucket", 404)
            except ClientError:
                raise kind("b/x")  # noqa: B904 - as s3fs does
        except Exception as error:
            return failure_of(error, "listing s3://b")

    found = ask(FileNotFoundError)
    assert not isinstance(found, FileNotFoundError)
    assert found.errno == errno.ENODEV


@pytest.mark.parametrize(
    "said", [{"Error": None}, {"Error": "busy", "ResponseMetadata": None}, {"ResponseMetadata": []}]
)
def test_an_answer_that_says_nothing_is_a_failure_like_any_other(said: object) -> None:
    error = RuntimeError("what the storage said cannot be read")
    error.response = said  # type: ignore[attr-defined]
    assert "cannot be read" in str(failure_of(error, "s3://b/x: read"))
