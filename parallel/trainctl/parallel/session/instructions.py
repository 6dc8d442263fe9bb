"""The instructions of the controller, as the training thread meets them: an abort flag, and what comes next."""

from __future__ import annotations

from collections.abc import Callable

from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.step import StepReport
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.parallel.bridge import Reported
from trainctl.parallel.session.control import Control

_POLL_S = 0.05
_MOVING_ON = (Instruction.PREPARE, Instruction.RUN)


class Instructions:
    """Reads them, answers PREPARE, hands RUN on.

    Attributes:
        entered: newest generation whose record was handed on; only newer instructions interrupt it.
    """

    def __init__(self, control: Control, *, touch: Callable[[], None]) -> None:
        self._control = control
        self._touch = touch
        self._latest = control.latest()
        self.entered = 0
        control.on_change(self._note)

    def _note(self, desired: WorkerDesired) -> None:
        self._latest = desired

    @property
    def latest(self) -> WorkerDesired:
        """The newest instruction; reading it costs nothing."""
        return self._latest

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self._latest.instruction is Instruction.STOP

    @property
    def holding(self) -> bool:
        """Whether the members of the generation that was entered are to wait at the next step boundary."""
        desired = self._latest
        return desired.hold and desired.instruction is Instruction.RUN and desired.generation == self.entered

    def aborted(self) -> bool:
        """Whether a newer generation calls: what this one still waits for is to be left."""
        return self._latest.generation > self.entered and self._latest.instruction in _MOVING_ON

    def next_record(self, report: Callable[[int], StepReport]) -> GenerationRecord | None:
        """Answers every PREPARE until a record of a newer generation is to be run; None when told to stop.

        Waits as long as it takes: the controller may be away, and the state here is worth keeping.
        """
        answered = self.entered
        while True:
            version = self._control.version
            desired = self._control.latest()
            if desired.instruction is Instruction.STOP:
                return None
            if desired.instruction is Instruction.PREPARE and desired.generation > answered:
                self._control.send(Reported(report(desired.generation)))
                answered = desired.generation
            if desired.instruction is Instruction.RUN and desired.generation > self.entered:
                self.entered = desired.generation
                return _record_of(desired)
            self._touch()
            self._control.wait_newer(version, _POLL_S)

    def wait_for_end(self, timeout_s: float) -> None:
        """Returns when a newer instruction arrived, or after ``timeout_s``; touches the page meanwhile."""
        self.wait_until(lambda: self.stopping, timeout_s)

    def wait_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Returns when ``done``, when a newer generation calls, or after ``timeout_s``; touches the page meanwhile."""
        waited_s = 0.0
        while waited_s < timeout_s and not done() and not self.aborted():
            self._touch()
            self._control.wait_newer(self._control.version, _POLL_S)
            waited_s += _POLL_S


def _record_of(desired: WorkerDesired) -> GenerationRecord:
    if desired.record is None or desired.record.generation != desired.generation:
        raise InternalError(f"RUN of generation {desired.generation} came without its record")
    return desired.record
