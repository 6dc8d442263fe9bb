"""A progress page with a helper, for loops that wait inside torch where nobody can show that they live."""

from __future__ import annotations

import threading
import time

from trainctl.core.records.part import Transfer
from trainctl.core.records.step import Phase
from trainctl.parallel.session.control import ProgressPage

_EVERY_S = 0.25


class SignOfLife:
    """Implements ``ProgressPage`` on top of another one, which it shows more often once ``assist`` was called.

    A rank that waits for a frozen one in a collective of the user's model looks frozen itself. The helper touches the
    page for it, for a limited time after the training thread did: so only the frozen process, whose helper is frozen,
    too, falls silent at first, and a deadlock is still found in the end.
    """

    def __init__(self, page: ProgressPage) -> None:
        self._page = page
        self._last_s = time.monotonic()

    def phase(self, generation: int, step: int, phase: Phase) -> None:
        """See ``ProgressPage``."""
        self._last_s = time.monotonic()
        self._page.phase(generation, step, phase)

    def touch(self) -> None:
        """See ``ProgressPage``."""
        self._last_s = time.monotonic()
        self._page.touch()

    def transfer(self, transfer: Transfer | None, since_s: float) -> None:
        """See ``ProgressPage``. No sign of life of the training thread."""
        self._page.transfer(transfer, since_s)

    def assist(self, limit_s: float) -> None:
        """From now on touches the page for up to ``limit_s`` after the training thread did."""
        threading.Thread(target=self._assist, args=(limit_s,), name="sign-of-life", daemon=True).start()

    def _assist(self, limit_s: float) -> None:
        while True:
            time.sleep(_EVERY_S)
            if time.monotonic() < self._last_s + limit_s:
                self._page.touch()
