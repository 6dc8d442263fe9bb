"""Without it a failed job would show our frames instead of the user's line, and no hint about what to do."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainctl.core.errors import DataError, SpecError
from trainctl.parallel import worker
from trainctl.parallel.session.program import ProgramError, check_finished, run_program
from trainctl.parallel.user_code import load
from trainctl.parallel.user_frames import begin_with_user

PROGRAM = """
import json

def read():
    return json.loads("{")

def main():
    try:
        read()
    except ValueError as error:
        raise KeyError("weights") from error

main()
"""


def raised_by(call: Callable[[], object]) -> BaseException:
    """What it raises, without the frames of this test."""
    try:
        call()
    except Exception as error:
        while error.__traceback__ is not None and error.__traceback__.tb_frame.f_code.co_filename == __file__:
            error.__traceback__ = error.__traceback__.tb_next
        return error
    raise AssertionError("expected an exception")


def test_a_programs_traceback_begins_with_its_own_frames_and_so_do_those_of_the_causes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    script = tmp_path / "mine.py"
    script.write_text(PROGRAM)
    error = raised_by(lambda: run_program(["python", str(script)], ""))
    assert "run_program" in "".join(traceback.format_exception(error))
    begin_with_user(error)
    last = traceback.extract_tb(error.__traceback__)
    assert [(frame.filename, frame.name) for frame in last] == [(str(script), "<module>"), (str(script), "main")]
    assert error.__cause__ is not None
    first, second, *rest = traceback.extract_tb(error.__cause__.__traceback__)
    assert [first.name, second.name] == ["main", "read"]
    assert rest[0].filename == json.__file__, "where the user's code leads to is still there"


def test_a_traceback_without_a_frame_of_the_users_stays_whole() -> None:
    error = raised_by(lambda: load("json.decoder:JSONDecodeErr"))
    before = traceback.format_exception(error)
    begin_with_user(error)
    assert traceback.format_exception(error) == before
    assert "user_code.py" in "".join(before)


def test_the_hint_of_an_error_goes_with_it_and_is_printed_once() -> None:
    report = worker.describe(DataError("expected text\nfound none", hint="bring some"), step=0)
    assert (report.code, report.hint) == ("DATA_UNUSABLE", "bring some")
    assert report.lines == ("error: expected text", "found none", "hint: bring some")
    user = worker.describe(ValueError("boo"), step=2)
    assert (user.hint, user.lines[-1]) == ("", "ValueError: boo")


def test_a_plain_traceback_shows_the_hint() -> None:
    error = raised_by(lambda: check_finished(None))
    assert "hint: call Session.open()" in "".join(traceback.format_exception(error))
    assert "hint" not in "".join(traceback.format_exception(SpecError(())))


@pytest.mark.parametrize(("applied", "where"), [(-1, "before its first step"), (0, "before its first step"), (4, "4")])
def test_a_program_that_ends_too_early_is_told_how_far_it_came(applied: int, where: str) -> None:
    session = SimpleNamespace(done=False, applied_step=applied, open_step=0, close=lambda: None)
    with pytest.raises(ProgramError, match="last step") as caught:
        check_finished(session)
    assert where in str(caught.value)
    assert "-1" not in str(caught.value)
