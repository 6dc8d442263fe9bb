"""Without it a worker could run a generation that is over, or break a step off when it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainctl.core.errors import InternalError
from trainctl.core.records.step import StepReport
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.parallel.bridge import Reported, WorkerMessage
from trainctl.parallel.session.control import NoControl
from trainctl.parallel.session.instructions import Instructions


class Script:
    """A control whose instructions come one after the other, each when the last one was waited out."""

    def __init__(self, *script: WorkerDesired) -> None:
        self._script = list(script)
        self._callbacks: list[Callable[[WorkerDesired], None]] = []
        self.sent: list[WorkerMessage] = []
        self.version = 1

    def latest(self) -> WorkerDesired:
        return self._script[0]

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        if self.version == than and len(self._script) > 1:
            self._script.pop(0)
            self.version += 1
            for callback in self._callbacks:
                callback(self._script[0])
        return self._script[0] if self.version > than else None

    def on_change(self, callback: Callable[[WorkerDesired], None]) -> None:
        self._callbacks.append(callback)

    def send(self, message: WorkerMessage) -> None:
        self.sent.append(message)

    def flush(self, timeout_s: float) -> bool:
        return True


BASE = NoControl().latest()


def told(instruction: Instruction, generation: int = 0) -> WorkerDesired:
    record = replace(BASE.record, generation=generation) if BASE.record and instruction is Instruction.RUN else None
    return replace(BASE, instruction=instruction, generation=generation, record=record)


def report(generation: int) -> StepReport:
    return StepReport(prepared_generation=generation, lineage=1, applied_step=7)


def test_each_prepare_is_answered_once_and_the_newest_record_is_run() -> None:
    control = Script(
        told(Instruction.STANDBY),
        told(Instruction.PREPARE, 1),
        told(Instruction.PREPARE, 1),
        told(Instruction.PREPARE, 2),
        told(Instruction.RUN, 2),
    )
    instructions = Instructions(control, touch=lambda: None)
    record = instructions.next_record(report)
    assert record is not None
    assert record.generation == instructions.entered == 2
    assert control.sent == [Reported(report(1)), Reported(report(2))]
    assert not instructions.aborted()


def test_only_a_newer_generation_interrupts() -> None:
    control = Script(told(Instruction.RUN, 3), told(Instruction.RUN, 3), told(Instruction.PREPARE, 4))
    instructions = Instructions(control, touch=lambda: None)
    instructions.next_record(report)
    control.wait_newer(control.version, 0)
    assert not instructions.aborted()
    control.wait_newer(control.version, 0)
    assert instructions.aborted()


def test_stop_ends_the_waiting_but_does_not_abort_a_step() -> None:
    control = Script(told(Instruction.PREPARE, 2), told(Instruction.STOP, 2))
    instructions = Instructions(control, touch=lambda: None)
    assert instructions.next_record(report) is None
    assert instructions.stopping
    assert not instructions.aborted()


def test_run_without_its_record_is_refused() -> None:
    control = Script(replace(told(Instruction.RUN, 2), record=None))
    with pytest.raises(InternalError, match="without its record"):
        Instructions(control, touch=lambda: None).next_record(report)
