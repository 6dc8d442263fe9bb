"""Whom a session obeys and reports to: an agent's bridge, or nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from trainctl.core.ids import FIRST_ISLAND
from trainctl.core.records.generation import GenerationRecord, Member, Rung
from trainctl.core.records.part import Transfer
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.parallel.bridge import Finished, WorkerMessage


class Control(Protocol):
    """What a session needs of ``parallel.bridge.WorkerBridge``."""

    @property
    def version(self) -> int:
        """Rises with every new instruction."""
        ...

    def latest(self) -> WorkerDesired:
        """The newest instruction."""
        ...

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        """The newest instruction as soon as ``version > than``."""
        ...

    def on_change(self, callback: Callable[[WorkerDesired], None]) -> None:
        """Runs ``callback`` for each instruction, also the one there is already."""
        ...

    def send(self, message: WorkerMessage) -> None:
        """Queues a message; never waits."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Waits until what was sent has left."""
        ...


class ProgressPage(Protocol):
    """What a session needs of ``parallel.progress_page.ProgressWriter``."""

    def phase(self, generation: int, step: int, phase: Phase) -> None:
        """Publishes where the worker is."""
        ...

    def touch(self) -> None:
        """Shows that the worker lives."""
        ...

    def transfer(self, transfer: Transfer | None, since_s: float) -> None:
        """Shows how far the save or load is that goes on since then (monotonic); called by any one thread at a time."""
        ...


class NoControl:
    """Implements ``Control`` for a process on its own: one worker that starts, and stops when it is done."""

    def __init__(self) -> None:
        member = Member(global_rank=0, slot=0, incarnation=1, node="local", agent_incarnation=0, address="127.0.0.1")
        record = GenerationRecord(
            job_uid="local",
            island=FIRST_ISLAND,
            job_generation=1,
            generation=1,
            predecessor=0,
            epoch=0,
            nonce="local",
            lineage=1,
            members=(member,),
            store_address="",
            target_step=0,
            rung=Rung.START,
        )
        self._desired = WorkerDesired(
            job_uid="local",
            job_name="local",
            island=FIRST_ISLAND,
            slot=0,
            incarnation=1,
            instruction=Instruction.RUN,
            generation=1,
            record=record,
        )
        self._callbacks: list[Callable[[WorkerDesired], None]] = []
        self._changed = threading.Condition()
        self.version = 1

    def latest(self) -> WorkerDesired:
        """RUN, and STOP once the session finished."""
        return self._desired

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        """See ``Control``."""
        return self._desired if self.version > than else None

    def on_change(self, callback: Callable[[WorkerDesired], None]) -> None:
        """See ``Control``."""
        self._callbacks.append(callback)
        callback(self._desired)

    def send(self, message: WorkerMessage) -> None:
        """Nobody listens; but what finished may stop."""
        if isinstance(message, Finished):
            self._tell(replace(self._desired, instruction=Instruction.STOP, record=None))

    def _tell(self, desired: WorkerDesired) -> None:
        self._desired = desired
        self.version += 1
        for callback in self._callbacks:
            callback(desired)

    def flush(self, timeout_s: float) -> bool:
        """There is nothing to wait for."""
        return True


class NoPage:
    """Implements ``ProgressPage`` where nobody looks."""

    def phase(self, generation: int, step: int, phase: Phase) -> None:
        """Nobody looks."""

    def touch(self) -> None:
        """Nobody looks."""

    def transfer(self, transfer: Transfer | None, since_s: float) -> None:
        """Nobody looks."""
