"""How somebody who looks on sees a job: a live line on a terminal, plain lines elsewhere, phases only while waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

from trainctl.cli.render import figures, tables
from trainctl.cli.terminal.console import Console
from trainctl.cli.terminal.style import PLAIN, shorten
from trainctl.core.texts import harmless
from trainctl.protos.v1.job_pb2 import Event, Job

PROGRESS_EVERY_S = 5.0
_CLEAR_LINE = "\r\x1b[2K"


class View(Protocol):
    """Shows a job as it goes on."""

    def job(self, job: Job) -> None:
        """The job's newest state."""
        ...

    def event(self, event: Event) -> None:
        """Something happened."""
        ...

    def note(self, text: str) -> None:
        """A word of the command itself, such as that the controller is away."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was."""
        ...


class LiveView:
    """Events above one line that is drawn again in place."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console = console
        self._stream = stream
        self._style = console.style(stream)
        self._line = ""
        self._last_event = ""
        self._job: Job | None = None

    def job(self, job: Job) -> None:
        """Draws the line again."""
        self._job = job
        self._draw()

    def event(self, event: Event) -> None:
        """Prints the event above the line."""
        self._last_event = event.type
        self._above(tables.event(event, now_s=time.time(), style=self._style))

    def note(self, text: str) -> None:
        """Prints the note above the line."""
        self._above(self._style.paint(text, "yellow"))

    def close(self) -> None:
        """Removes the line."""
        self._stream.write(_CLEAR_LINE)
        self._stream.flush()

    def _above(self, text: str) -> None:
        self._stream.write(f"{_CLEAR_LINE}{harmless(text)}\n")
        self._draw()

    def _draw(self) -> None:
        if self._job is not None:
            status = self._job.status
            text = figures.progress(status, phase=status.phase, now_s=time.time())
            if self._last_event:
                text += f"  last {self._last_event}"
            # Cut before painting: an escape sequence must not be cut in two, nor the line wrap.
            text = shorten(text, self._console.width() - 1)
            painted = text.replace(status.phase, self._style.state(status.phase), 1)
            self._stream.write(f"{_CLEAR_LINE}{harmless(painted)}")
        self._stream.flush()


class PlainView:
    """A line per event, and one about the progress every few seconds."""

    def __init__(
        self, write: Callable[[str], None], say: Callable[[str], None], *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._say = say
        self._now_s = now_s
        self._next_s = 0.0
        self._shown_step = -1

    def job(self, job: Job) -> None:
        """Prints where the job is, if that is due and new: a save or load moves on also where no step is done."""
        if self._now_s() >= self._next_s and (job.status.step != self._shown_step or job.status.transfers):
            self._write(figures.progress(job.status, phase=job.status.phase, now_s=time.time()))
            self._next_s = self._now_s() + PROGRESS_EVERY_S
            self._shown_step = job.status.step

    def event(self, event: Event) -> None:
        """Prints the event."""
        self._write(tables.event(event, now_s=time.time(), style=PLAIN))

    def note(self, text: str) -> None:
        """Prints the note to stderr."""
        self._say(text)

    def close(self) -> None:
        """Nothing to clean up."""


class PhaseView:
    """One line per change of phase."""

    def __init__(self, write: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._write = write
        self._say = say
        self._phase = ""

    def job(self, job: Job) -> None:
        """Prints the phase when it has changed."""
        if job.status.phase != self._phase:
            self._phase = job.status.phase
            self._write(figures.progress(job.status, phase=job.status.phase, now_s=time.time()))

    def event(self, event: Event) -> None:
        """Events are not shown."""

    def note(self, text: str) -> None:
        """Prints the note to stderr."""
        self._say(text)

    def close(self) -> None:
        """Nothing to clean up."""
