"""All hooks of a run, on the one worker that reports: fan-out without waiting."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.core.system.deadline import Deadline
from trainctl.parallel.results.hook import Run, RunEnd
from trainctl.parallel.results.hook_thread import Call, HookThread, Report, Settle, say_nothing
from trainctl.parallel.results.sources import JSONL, HookSource

CLOSE_S = 5.0
"""How long a worker that ends waits for its hooks, all of them together."""
SETTLE_S = 1.0
"""How long a checkpoint waits for the records of its steps."""


class Hooks:
    """Runs the hooks between ``start`` and ``close``; every other call is nothing while they do not run.

    Args:
        sources: where the hooks come from; they are only made where they run.
        report: told of trouble.
    """

    def __init__(self, sources: Sequence[HookSource], report: Report = say_nothing) -> None:
        self._sources = sources
        self._report = report
        self._threads: tuple[HookThread, ...] = ()
        self._patient = True

    @property
    def running(self) -> bool:
        """Whether this worker is the one that reports."""
        return bool(self._threads)

    def start(self, run: Run) -> None:
        """Begins: this worker reports from now on."""
        self._threads = tuple(
            HookThread(source.name, source.make, source.delivered(run.records), self._report)
            for source in self._sources
        )
        self.put(run)

    def put(self, call: Call) -> None:
        """Tells every hook; never waits."""
        for thread in self._threads:
            thread.put(call)

    def settle(self) -> None:
        """Waits for a moment until the records hold all steps put so far, so that no later failure can lose one.

        Records that were too slow once are not waited for again.
        """
        for thread in self._threads:
            if thread.name == JSONL and self._patient:
                thread.put(Settle())
                self._patient = thread.wait(SETTLE_S)

    def close(self, end: RunEnd) -> None:
        """Ends all hooks, within ``CLOSE_S``; may be repeated."""
        threads, self._threads = self._threads, ()
        for thread in threads:
            thread.put(end)
            thread.end()
        deadline = Deadline(CLOSE_S)
        for thread in threads:
            thread.join(deadline.left_s)
