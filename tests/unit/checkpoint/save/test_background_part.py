"""A part on its way: what its stages took, and how it ends.

Without it a save that failed in the background could be taken for a good one.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import whole
from trainctl.checkpoint.manifest.records import PartReport, StoredFile
from trainctl.checkpoint.monitor import CAUSES, CHECKSUM, SYNC
from trainctl.checkpoint.save.data_file import Entry
from trainctl.checkpoint.snapshot import background
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.stopwatch import timed
from trainctl.checkpoint.storage import descriptors
from trainctl.core.errors import CheckpointError
from waiting import PATIENCE_S

REPORT = PartReport(
    writer=0, attempt="a", manifest=StoredFile(path="m", size_bytes=1, sha256=""), files=(), data_bytes=1
)


def write(data: Mapping[Any, Any], *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
    alive()
    confirm()
    return REPORT


class LongStep(Given):
    """Is settled after ten looks."""

    def __init__(self) -> None:
        super().__init__({})
        self.waited_s = 0.0
        self._looks = 0

    def settled(self, within_s: float) -> bool:
        began_s = time.monotonic()
        threading.Event().wait(within_s)
        self.waited_s += time.monotonic() - began_s
        self._looks += 1
        return self._looks == 10


def test_waiting_for_the_step_is_not_the_storages_time() -> None:
    source = LongStep()
    part = BackgroundPart(source, write)
    began_s = time.monotonic()
    part.start()
    assert part.wait(PATIENCE_S)
    total_s = time.monotonic() - began_s
    assert part.outcome is not None
    assert part.outcome.part == REPORT
    assert 0.0 <= part.outcome.stages["write"] <= total_s - source.waited_s


def test_the_parts_of_a_rank_are_written_in_order() -> None:
    order: list[int] = []
    go = threading.Event()

    def noting(number: int) -> Callable[..., PartReport]:
        def noted(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
            assert go.wait(PATIENCE_S)
            order.append(number)
            return REPORT

        return noted

    first = BackgroundPart(Given({}), noting(1))
    second = BackgroundPart(Given({}), noting(2), before=first)
    second.start()
    first.start()
    go.set()
    assert second.wait(PATIENCE_S)
    assert order == [1, 2]


def test_one_that_is_given_up_ends_at_once_and_lets_go_of_its_memory_later() -> None:
    go, released = threading.Event(), threading.Event()

    def hanging(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        assert go.wait(PATIENCE_S)
        alive()
        raise AssertionError("it was given up")

    part = BackgroundPart(Given({}), hanging, released=released.set)
    part.start()
    part.give_up("too slow", "no_answer")
    assert part.wait(0.0)
    assert part.outcome is not None
    assert (part.outcome.part, part.outcome.error, part.outcome.cause) == (None, "too slow", "no_answer")
    assert not released.is_set()
    go.set()
    assert released.wait(PATIENCE_S)
    assert part.outcome.error == "too slow"


def test_beside_training_the_first_byte_waits_until_others_have_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "first_rest_s", lambda size_bytes: 2 * PATIENCE_S)
    large = {Entry(StateKey("w", "param", "F32", "island-0", StateVersion(1, 1)), (1 << 30,), whole((1 << 30,))): None}
    begun, released = threading.Event(), threading.Event()

    def noting(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        begun.set()
        return REPORT

    waits = BackgroundPart(Given(large), noting, released=released.set)  # type: ignore[arg-type]
    waits.start()
    assert not begun.wait(0.2)
    waits.give_up("nobody wants it")
    assert released.wait(PATIENCE_S)  # whose rest is over at once
    assert not begun.is_set()
    somebody_waits = BackgroundPart(Given(large), noting, beside_training=False)  # type: ignore[arg-type]
    somebody_waits.start()
    assert begun.wait(PATIENCE_S)
    monkeypatch.undo()
    rests = BackgroundPart(Given(large), noting)  # type: ignore[arg-type]
    rests.start()
    assert rests.wait(PATIENCE_S)
    assert rests.outcome is not None
    assert rests.outcome.part == REPORT


class Slow:
    """A pace that is never done resting."""

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked

    def due_s(self) -> float:
        self._asked.set()
        return 2 * PATIENCE_S

    def resume(self) -> None:
        """Work goes on."""


def test_beside_training_it_rests_between_blocks_until_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, went_on, released = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(background, "Pace", lambda processors: Slow(asked))

    def blocks(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        alive()
        went_on.set()
        alive()
        return REPORT

    rests = BackgroundPart(Given({}), blocks, released=released.set)
    rests.start()
    assert asked.wait(PATIENCE_S)
    assert not went_on.wait(0.2)
    rests.give_up("nobody wants it")
    assert released.wait(PATIENCE_S)
    asked.clear()
    somebody_waits = BackgroundPart(Given({}), blocks, beside_training=False)
    somebody_waits.start()
    assert somebody_waits.wait(PATIENCE_S)
    assert somebody_waits.outcome is not None
    assert somebody_waits.outcome.part == REPORT
    assert not asked.is_set()


@pytest.mark.parametrize("beside_training", [True, False])
def test_beside_training_it_writes_past_the_cache_and_with_less_right_to_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beside_training: bool
) -> None:
    past_cache: list[bool] = []
    monkeypatch.setattr(background, "_NICE", 19)  # whoever runs the tests may have been given less than others, too
    monkeypatch.setattr(descriptors, "_past_cache", lambda descriptor, wanted: past_cache.append(wanted))
    nice: list[int] = []

    def into_file(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        with open(tmp_path / "file", "wb") as file:
            descriptors.write_stream(file.fileno(), [b"bytes"])
        return REPORT

    part = BackgroundPart(Given({}), into_file, beside_training=beside_training)
    part.start()
    assert part.wait(PATIENCE_S)
    assert part.outcome is not None
    assert part.outcome.part == REPORT
    assert past_cache == ([True] if beside_training else [])
    assert nice == [background._NICE]
    assert (tmp_path / "file").read_bytes() == b"bytes"


def test_what_nobody_expected_is_an_error_of_the_part() -> None:
    def broken(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        raise ZeroDivisionError("a bug")

    part = BackgroundPart(Given({}), broken)
    part.start()
    assert part.wait(PATIENCE_S)
    assert part.outcome is not None
    assert (part.outcome.error, part.outcome.cause) == ("ZeroDivisionError: a bug", "other")


@pytest.mark.parametrize(
    ("source", "error", "cause"),
    [
        (Given({}), OSError(errno.ENOSPC, "full"), "storage"),
        (Given({}), CheckpointError("refused"), "storage"),
        (Given({}, "no room", "no_memory"), None, "no_memory"),
        (Given({}, "somebody wrote to it", "changed_state"), None, "changed_state"),
    ],
)
def test_a_failure_has_a_cause(source: Given, error: Exception | None, cause: str) -> None:
    def refused(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        assert error is not None
        raise error

    part = BackgroundPart(source, refused, retry_after_s=())
    part.start()
    assert part.wait(PATIENCE_S)
    assert part.outcome is not None
    assert (part.outcome.part, part.outcome.cause) == (None, cause)
    assert cause in CAUSES


def test_stages_are_those_that_the_writer_says() -> None:
    def staged(data: Any, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
        with timed(CHECKSUM):
            alive()
        with timed(SYNC):
            confirm()
        return REPORT

    part = BackgroundPart(Given({}), staged)
    part.start()
    assert part.wait(PATIENCE_S)
    assert part.outcome is not None
    assert set(part.outcome.stages) == {"copy", "checksum", "write", "sync"}


def test_what_is_shared_afterwards_is_no_stage_and_may_fail() -> None:
    def refused(part: PartReport | None, *, alive: Callable[[], None], check: Callable[[], None]) -> None:
        with timed(SYNC):
            assert part == REPORT
        raise OSError(errno.ENOSPC, "full")

    part = BackgroundPart(Given({}), write, share=refused)
    part.start()
    assert part.wait(PATIENCE_S)
    assert part.outcome is not None
    assert (part.outcome.part, part.outcome.cause) == (None, "storage")
    assert "full" in part.outcome.error
    assert set(part.outcome.stages) == {"copy", "write"}
