"""Looks after writes without an answer, which may take effect late: at jobs that have ended nobody else looks again."""

from __future__ import annotations

import asyncio
import logging

from trainctl.controller.domain.reconcile import Reconciliation
from trainctl.controller.jobs.book import JobBook
from trainctl.core.errors import FencedError, TrainctlError

_log = logging.getLogger(__name__)
AGAIN_S = 1.0


class Settling:
    """Asks the store until it is known what became of such a write; what it did then has the usual consequences.

    Args:
        book: the jobs.
    """

    def __init__(self, book: JobBook) -> None:
        self._book = book

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._book.doubted.clear()
            for entry in self._book.doubtful():
                try:
                    await self._book.apply(entry.state.uid, lambda state: Reconciliation(state=state))
                except FencedError:
                    raise
                except TrainctlError as error:
                    _log.debug("job %s is still in doubt: %s", entry.state.name, error)
            try:
                async with asyncio.timeout(AGAIN_S if self._book.doubtful() else None):
                    await self._book.doubted.wait()
            except TimeoutError:
                continue
