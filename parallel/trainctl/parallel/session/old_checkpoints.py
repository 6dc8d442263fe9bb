"""Removes checkpoints that the job no longer needs, once the controller has said which one is current."""

from __future__ import annotations

import logging
import threading

from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.instructions import Instructions

_LOG = logging.getLogger("trainctl.session")
CONFIRMED_S = 5.0
"""How long a worker that ends waits to hear that its last checkpoint is current: no controller may be there."""
REMOVED_S = 8.0
"""How long it waits until older ones are gone: less than a worker that was told to stop may take."""
_TURN_S = 0.05


class OldCheckpoints:
    """What the worker of rank 0 removes, in a thread that lives as long as there is something to do.

    Nothing goes because a worker has completed something: it may have been replaced without knowing. The controller
    tells what is current to the worker of rank 0 of the newest generation, and this one acts on it as long as it is in
    that generation. If it freezes meanwhile, what it removes later is still of no use: see ``retention.retain``.

    Args:
        checkpoints: where they lie, and how many are kept.
        job: uid of the job.
        instructions: what the worker is told.
    """

    def __init__(self, checkpoints: Checkpoints, job: str, instructions: Instructions) -> None:
        self._checkpoints = checkpoints
        self._job = job
        self._instructions = instructions
        self._lock = threading.Lock()
        self._told: tuple[str, ...] = ()
        self._idle = threading.Event()
        self._idle.set()

    def look(self, told: WorkerDesired) -> None:
        """Begins what a new instruction allows; returns at once, on whatever thread."""
        with self._lock:
            if not self._allows(told) or told.kept_checkpoints == self._told or not self._checkpoints.uri:
                return
            self._told = told.kept_checkpoints
            if self._idle.is_set():
                self._idle.clear()
                threading.Thread(target=self._work, name="old-checkpoints", daemon=True).start()

    def settle(self, newest: CheckpointRef | None) -> None:
        """Before the worker ends: waits a moment until the newest that it completed is current, and older ones gone."""
        if newest is None or not self._checkpoints.uri:
            return
        wait = self._instructions.wait_until
        wait(lambda: newest.attempt in self._instructions.latest.kept_checkpoints, CONFIRMED_S)
        self.look(self._instructions.latest)
        wait(lambda: self._idle.wait(_TURN_S), REMOVED_S)

    def _allows(self, told: WorkerDesired) -> bool:
        entered = told.generation == self._instructions.entered > 0
        return entered and bool(told.kept_checkpoints) and told.instruction in (Instruction.RUN, Instruction.STOP)

    def _work(self) -> None:
        kept: tuple[str, ...] = ()
        while True:
            with self._lock:
                if self._told == kept:
                    self._idle.set()
                    return
                kept = self._told
            try:
                keep = self._checkpoints.spec.keep.last
                writer = self._checkpoints.writer()
                writer.retain(job=self._job, keep=keep, current=kept[-1], protect=frozenset(kept))
            except Exception as error:  # whatever it is: one that stays for once does no harm, the next time it goes
                _LOG.warning("older checkpoints stay for now: %s: %s", type(error).__name__, error)
