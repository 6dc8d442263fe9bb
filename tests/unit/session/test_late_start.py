"""Without it a program that never comes to its first step would be waited for in silence."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from trainctl.parallel.bridge import Noticed, WorkerMessage
from trainctl.parallel.session.attachment import Attachment
from trainctl.parallel.session.control import NoControl, NoPage
from trainctl.parallel.session.late_start import told_of_late_start
from waiting import PATIENCE_S


class Recording(NoControl):
    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()
        self.text = ""

    def send(self, message: WorkerMessage) -> None:
        assert isinstance(message, Noticed)
        self.text = message.text
        self.told.set()


@pytest.mark.parametrize("opened", [True, False])
def test_a_program_that_begins_no_step_is_told_of(opened: bool) -> None:
    control = Recording()
    session = SimpleNamespace(begun=False) if opened else None
    missing = "not entered `with session.step()` yet" if opened else "opened no session yet"
    with told_of_late_start(Attachment(control, NoPage(), session), 0.02):
        assert control.told.wait(PATIENCE_S)
    assert missing in control.text
    assert "started again" in control.text


def test_one_that_trains_or_has_ended_is_not() -> None:
    control = Recording()
    before = set(threading.enumerate())
    with told_of_late_start(Attachment(control, NoPage(), SimpleNamespace(begun=True)), 0.0):
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE_S)
    with told_of_late_start(Attachment(control, NoPage()), PATIENCE_S):
        pass
    assert not control.told.is_set()
