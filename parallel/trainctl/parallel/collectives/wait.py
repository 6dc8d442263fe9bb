"""The one place where a training thread waits: it looks at work and abort flag in turn, and shows that it lives."""

from __future__ import annotations

from collections.abc import Callable

from trainctl.checkpoint.exchange.lanes import Lane
from trainctl.checkpoint.exchange.port import Work
from trainctl.core.errors import CollectiveError
from trainctl.core.system.deadline import Deadline

_LOOK_EVERY_S = 0.005
"""How often a waiting thread looks at its abort flag."""


class Interrupted(BaseException):
    """The controller wants this worker to stop waiting for its generation.

    Not an ``Exception``: a user's ``except Exception`` around a step must not swallow it.
    """


class Waiter:
    """Waits in short turns.

    Args:
        aborted: whether to stop waiting now; checked between turns.
        touch: called between turns: the sign of life; others that take long may call it, too.
        where: says who waits, for messages: job, island, generation, step, rank.
        timeout_s: longest wait in one operation.
    """

    def __init__(
        self, *, aborted: Callable[[], bool], touch: Callable[[], None], where: Callable[[], str], timeout_s: float
    ) -> None:
        self._aborted = aborted
        self.touch = touch
        self._where = where
        self.timeout_s = timeout_s

    def check(self, *, alive: bool = True) -> None:
        """A look at the abort flag, and a sign of life if ``alive``.

        Raises:
            Interrupted: the flag is set.
        """
        if alive:
            self.touch()
        if self._aborted():
            raise Interrupted

    def wait(self, work: Work, what: str) -> None:
        """Returns when ``work`` is done. What is done counts, also when the abort flag was set meanwhile.

        Raises:
            Interrupted: the abort flag was set first.
            CollectiveError: it failed, or was not done after ``timeout_s``; says ``what`` it was, and where.
        """
        timed = _Timed(work, self.timeout_s)
        while not timed.done_within(_LOOK_EVERY_S):
            self.check()
        self._settle(work, what)

    def lane(self, lane: Lane, what: str) -> Lane:
        """The same for ``run_lanes``: what fails, or is not done in time, ends it as it ends ``wait``."""
        for work in lane:
            yield _Timed(work, self.timeout_s)
            self._settle(work, what)

    def _settle(self, work: Work, what: str) -> None:
        if not work.done():
            self.check()
            raise CollectiveError(
                f"{what} was not done after {self.timeout_s:g} s in {self._where()}: "
                "a rank has not joined, is frozen or cannot be reached",
                hint="`trainctl describe` shows the progress of the other workers, and so which one is behind",
            )
        self.touch()
        if problem := work.error():
            raise CollectiveError(f"{what} failed in {self._where()}: {problem}")


class _Timed:
    """Work that is over also when its time is: whoever waited for it looks what became of it."""

    def __init__(self, work: Work, timeout_s: float) -> None:
        self._work = work
        self._deadline = Deadline(timeout_s)

    def done(self) -> bool:
        """See ``Work``."""
        return self._work.done() or self._deadline.over

    def done_within(self, timeout_s: float) -> bool:
        """See ``Work``."""
        return self._work.done_within(timeout_s) or self._deadline.over

    def error(self) -> str:
        """Nothing: who looks finds it."""
        return ""
