"""One hook in a thread of its own: whatever it does, nobody waits for it longer than told."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.results.delivered import START, Delivered, Position
from trainctl.parallel.results.hook import Hook, Recorder, Recovery, Run, RunEnd
from trainctl.parallel.user_frames import begin_with_user

_LOG = logging.getLogger("trainctl.results")
MAX_WAITING = 4096
"""Calls that wait for a slow hook before the oldest are left out."""
MAX_ERRORS = 3
"""Errors after which a hook is switched off."""
STUCK_S = 30.0
"""Length of one call after which it is said to hang."""
_IDLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Settle:
    """Asks a ``Recorder`` to write what it has."""


Call = Run | StepFigures | CheckpointReport | Recovery | RunEnd | Settle
Report = Callable[[str, str], None]
"""Told of trouble: the hook's name, and a sentence."""


def say_nothing(name: str, sentence: str) -> None:
    """A ``Report`` for whom the log is enough."""


class HookThread:
    """Makes a hook and calls it, in the order of ``put``.

    Args:
        name: of the hook, for messages.
        make: makes it; called in the thread.
        delivered: how far it came.
        report: told once of each kind of trouble, on whatever thread.
    """

    def __init__(self, name: str, make: Callable[[], Hook], delivered: Delivered, report: Report) -> None:
        self.name = name
        self._make = make
        self._delivered = delivered
        self._report = report
        self._said: set[str] = set()
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._put = self._handled = 0
        self._ending = False
        self._off = False
        self._errors = 0
        self._call_began_s = 0.0
        self._hook: Hook | None = None
        self._position: Position = START
        self._thread = threading.Thread(target=self._work, name=f"hook-{name}", daemon=True)
        self._thread.start()

    def put(self, call: Call) -> None:
        """Queues a call; never waits."""
        with self._changed:
            if self._off or self._ending:
                return
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self._handled += 1
                self._say("slow", f"is more than {MAX_WAITING} calls behind: the oldest are left out")
            self._waiting.append(call)
            self._put += 1
            self._changed.notify_all()
        began_s = self._call_began_s
        if began_s and time.monotonic() - began_s > STUCK_S:
            self._say("stuck", f"is in one call for more than {STUCK_S:g} s; training goes on without it")

    def wait(self, timeout_s: float) -> bool:
        """Waits until everything put so far was delivered and flushed; False if that took too long."""
        with self._changed:
            so_far = self._put
            return self._changed.wait_for(lambda: self._off or self._handled >= so_far, timeout_s)

    def end(self) -> None:
        """Nothing more comes; returns at once. The thread ends when it has delivered what waits."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread after ``end``; one that hangs is left behind, and dies with the process."""
        self._thread.join(max(0.0, timeout_s))
        if self._thread.is_alive():
            self._say("late", "did not finish in its time: what it had not written is lost")

    def _work(self) -> None:
        self._position = self._delivered.read()
        calls: tuple[Call, ...] = ()
        while True:
            with self._changed:
                self._handled += len(calls)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._ending, _IDLE_S)
                calls = tuple(self._waiting)
                self._waiting.clear()
                ending = self._ending
            for call in calls:
                self._deliver(call)
            if self._hook is not None:
                self._guard("flush", self._hook.flush)
            if isinstance(self._hook, Recorder) and self._hook.trouble:
                self._say("trouble", self._hook.trouble)
            if self._off or (ending and not self._waiting):
                break
            self._delivered.write(self._position, last=False)
        if self._position > START:
            self._delivered.write(self._position, last=True)
        with self._changed:
            self._off = True
            self._changed.notify_all()

    def _deliver(self, call: Call) -> None:
        if self._hook is None and not self._guard("making it", self._create):
            self._off = True
        hook = self._hook
        if self._off or hook is None:
            return
        match call:
            case Run():
                lineage, step = self._position
                self._guard("on_start", lambda: hook.on_start(replace(call, step=step, lineage=lineage)))
            case StepFigures():
                self._step(hook, call)
            case CheckpointReport():
                self._guard("on_checkpoint", lambda: hook.on_checkpoint(call))
            case Recovery():
                self._guard("on_recovery", lambda: hook.on_recovery(call))
            case RunEnd():
                self._guard("on_end", lambda: hook.on_end(call))
            case Settle():
                if isinstance(hook, Recorder):
                    self._guard("settle", hook.settle)

    def _step(self, hook: Hook, figures: StepFigures) -> None:
        """Each step once: after a recovery more are put than the hook does not know yet."""
        position = (figures.lineage, figures.step)
        if position <= self._position:
            return
        self._guard("on_step", lambda: hook.on_step(figures))
        if figures.eval_loss is not None:
            self._guard("on_evaluate", lambda: hook.on_evaluate(figures))
        self._position = position

    def _create(self) -> None:
        self._hook = self._make()

    def _guard(self, what: str, work: Callable[[], None]) -> bool:
        """Runs a part of the hook; whether it came back without an error."""
        if self._off:
            return False
        self._call_began_s = time.monotonic()
        try:
            work()
        except BaseException as error:  # not even SystemExit of somebody's code ends the training
            self._errors += 1
            begin_with_user(error)
            details = "".join(traceback.format_exception(error))
            self._say("error", f"{what} raised {type(error).__name__}: {error}", details)
            if self._errors >= MAX_ERRORS:
                self._off = True
                self._say("off", f"is switched off after {MAX_ERRORS} errors; training goes on")
            return False
        finally:
            self._call_began_s = 0.0
        return True

    def _say(self, kind: str, sentence: str, details: str = "") -> None:
        if kind in self._said:
            return
        self._said.add(kind)
        _LOG.error("hook %s %s%s", self.name, sentence, f"\n{details}" if details else "")
        self._report(self.name, sentence)
