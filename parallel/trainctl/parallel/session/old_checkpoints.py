"""Removes checkpoints that the job no longer needs, once the controller has said which one is current."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from trainctl.checkpoint.kept.catalog import survey
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.parallel.bridge import Checkpointed
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.instructions import Instructions
from trainctl.parallel.session.read_back import ReadBack

_LOG = logging.getLogger("trainctl.session")
CONFIRMED_S = 5.0
"""How long a worker that ends waits to hear that its last checkpoint is current: no controller may be there."""
REMOVED_S = 8.0
"""How long it waits until older ones are gone: less than a worker that was told to stop may take."""
_TURN_S = 0.05
_NICE = 10
"""The training thread has the processor first."""


class _Told(NamedTuple):
    """What the controller said last, as far as it is carried out here."""

    generation: int = 0
    kept: tuple[str, ...] = ()
    read_back: str = ""


class OldCheckpoints:
    """What the worker of rank 0 removes, in a thread that lives as long as there is something to do.

    Nothing goes because a worker has completed something: it may have been replaced without knowing. The controller
    tells what is current to the worker of rank 0 of the newest generation, and this one acts on it as long as it is in
    that generation. If it freezes meanwhile, what it removes later is still of no use: see ``retention.retain``.

    Where the controller wants to know before what the bytes of a checkpoint are like, they are read here.

    Args:
        checkpoints: where they lie, and how many are kept.
        desired: says which job it is.
        instructions: what the worker is told.
        tell: takes what was found in a checkpoint that was read back.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        desired: WorkerDesired,
        instructions: Instructions,
        *,
        tell: Callable[[Checkpointed], None],
    ) -> None:
        self._checkpoints = checkpoints
        self._job = desired.job_uid
        self._instructions = instructions
        self._tell = tell
        self._read_back = ReadBack(self._job, desired.island)
        self._lock = threading.Lock()
        self._told = _Told()
        self._idle = threading.Event()
        self._idle.set()

    def look(self, desired: WorkerDesired) -> None:
        """Begins what a new instruction allows; returns at once, on whatever thread."""
        told = _Told(desired.generation, desired.kept_checkpoints, desired.read_back)
        with self._lock:
            if not self._allows(desired) or told == self._told or not self._checkpoints.uri:
                return
            self._told = told
            if self._idle.is_set():
                self._idle.clear()
                threading.Thread(target=self._work, name="old-checkpoints", daemon=True).start()

    def settle(self, newest: CheckpointRef | None) -> None:
        """Before the worker ends: waits a moment until the newest that it completed is current, and older ones gone."""
        if newest is None or not self._checkpoints.uri:
            return
        instructions = self._instructions

        def current() -> bool:
            return newest.attempt in instructions.latest.kept_checkpoints

        def gone() -> bool:
            return self._idle.wait(_TURN_S) and not (current() and instructions.latest.read_back)

        with self._read_back.hurry():
            instructions.wait_until(current, CONFIRMED_S)
            self.look(instructions.latest)
            instructions.wait_until(gone, REMOVED_S)

    def _allows(self, told: WorkerDesired) -> bool:
        entered = told.generation == self._instructions.entered > 0
        return entered and bool(told.kept_checkpoints) and told.instruction in (Instruction.RUN, Instruction.STOP)

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # a courtesy that not every system knows
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        done = _Told()
        while True:
            with self._lock:
                if self._told == done:
                    self._idle.set()
                    return
                done = self._told
            try:
                self._carry_out(done)
            except Exception as error:  # whatever it is: one that stays for once does no harm, the next time it goes
                _LOG.warning("older checkpoints stay for now: %s: %s", type(error).__name__, error)

    def _carry_out(self, told: _Told) -> None:
        self._checkpoints.writer().retain(
            job=self._job,
            keep=self._checkpoints.spec.keep.last,
            current=told.kept[-1],
            protect=frozenset(told.kept),
            check=self._read_back.check,
        )
        if told.read_back:
            found = survey(self._checkpoints.uri)
            report = self._read_back.report(told.read_back, found, generation=told.generation)
            if report is not None:
                self._tell(Checkpointed(report))
