"""Signs of life of a command, as ``spec.launch.hang.watch`` wants them; the controller draws the conclusion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from trainctl.core.records.spec import HEARTBEAT, LOG, HangSpec
from trainctl.parallel.plan.command_errors import CommandUnusableError


class Pulse:
    """Says whether the command was heard since it was last asked.

    Args:
        hang: what counts; with ``none`` the command is not judged, and the launcher's own life is all there is.
        heartbeat: the file that the command may touch; made here.

    Raises:
        CommandUnusableError: the file cannot be made.
    """

    def __init__(self, hang: HangSpec, heartbeat: Path) -> None:
        self._watch = hang.watch
        self._heartbeat = heartbeat
        self._printed = threading.Event()
        self._touched_ns = 0
        self.reset()

    @property
    def on_output(self) -> Callable[[], None] | None:
        """Whom to tell that the command printed something; None where nobody wants to know."""
        return self._printed.set if self._watch == LOG else None

    def reset(self) -> None:
        """The command is about to be started: from now on it is listened to."""
        try:
            self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
            self._heartbeat.touch()
        except OSError as error:
            raise CommandUnusableError(
                f"the heartbeat file {self._heartbeat} cannot be made: {error.strerror}"
            ) from error
        self._touched_ns = self._time_of_file()
        self._printed.clear()

    def heard(self) -> bool:
        """Whether there was a sign of life since the last call."""
        if self._watch == LOG:
            printed = self._printed.is_set()
            self._printed.clear()
            return printed
        if self._watch == HEARTBEAT:
            touched_ns, self._touched_ns = self._touched_ns, self._time_of_file()
            return touched_ns != self._touched_ns
        return True

    def close(self) -> None:
        """Removes the file."""
        self._heartbeat.unlink(missing_ok=True)

    def _time_of_file(self) -> int:
        try:
            return self._heartbeat.stat().st_mtime_ns
        except OSError:
            return 0  # a command may remove it, as a way to touch it; that is a change, too
