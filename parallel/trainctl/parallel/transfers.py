"""How far the saves and the load of this worker are, for its progress page: whoever moves bytes counts them here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trainctl.core.records.part import Transfer, TransferKind

Show = Callable[[Transfer | None, float], None]
"""Publishes what goes on, and since when (monotonic seconds); None: nothing does."""


def unshown(transfer: Transfer | None, since_s: float) -> None:
    """Nobody looks on."""


class OpenTransfer:
    """One that goes on. Any thread counts; it ends with ``close``, which may come twice."""

    def __init__(self, board: TransferBoard, kind: TransferKind, step: int, total_bytes: int) -> None:
        self._board = board
        self.kind = kind
        self.step = step
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.began_s = time.monotonic()

    def restart(self) -> None:
        """It is tried again from the beginning."""
        self.done_bytes = 0
        self._board.show()

    def add(self, size_bytes: int) -> None:
        """So many bytes more."""
        self.done_bytes += size_bytes
        self._board.show()

    def at(self, done_bytes: int, total_bytes: int) -> None:
        """So many bytes of so many in all."""
        self.done_bytes, self.total_bytes = done_bytes, total_bytes
        self._board.show()

    def close(self) -> None:
        """It is over, for all ranks: until then one that has done its part still shows it."""
        self._board.end(self)


class TransferBoard:
    """All of one worker. Shown is the oldest: saves are written one after the other.

    Args:
        show: publishes it; quick, and called with a lock held.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._open: list[OpenTransfer] = []

    def begin(self, kind: TransferKind, step: int, total_bytes: int = 0) -> OpenTransfer:
        """One more; ``total_bytes`` may become known later."""
        transfer = OpenTransfer(self, kind, step, total_bytes)
        with self._lock:
            self._open.append(transfer)
            self._publish()
        return transfer

    def end(self, transfer: OpenTransfer) -> None:
        """One less."""
        with self._lock:
            if transfer in self._open:
                self._open.remove(transfer)
                self._publish()

    def show(self) -> None:
        """Something moved."""
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        if not self._open:
            self._show(None, 0.0)
            return
        first = self._open[0]
        transfer = Transfer(
            kind=first.kind,
            step=first.step,
            done_bytes=min(first.done_bytes, first.total_bytes),
            total_bytes=first.total_bytes,
            in_flight=len(self._open),
        )
        self._show(transfer, first.began_s)
