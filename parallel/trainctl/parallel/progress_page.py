"""The progress page: 4 KiB of memory shared by a worker and its agent, in which the worker says where it is.

Two slots and a counter: the writer fills the slot that nobody reads, then raises the counter, so a reader always finds
one whole sample, also when the writer was killed in the middle of a write. The time of the last touch stands apart, as
one aligned 8-byte word. A write costs about a microsecond and makes no system call but the clock's.

Layout in 8-byte words: 0 magic, 1 counter, 2 last touch, 8 and 16 the two slots of (generation, step, phase, since).
Times are CLOCK_MONOTONIC seconds, which all processes of one machine share. The order of the stores is the program's:
guaranteed on x86-64; on weaker machines the interpreter's own work lies between them.
"""

from __future__ import annotations

import mmap
import os
import time

from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Progress

PAGE_BYTES = 4096
_MAGIC = 0x7472636C70670001  # "trclpg", version 1
_MAGIC_WORD, _COUNTER, _TOUCHED = 0, 1, 2
_SLOTS = (8, 16)
_PHASES = tuple(Phase)
_PHASE_NUMBERS = {phase: number for number, phase in enumerate(_PHASES)}


class ProgressWriter:
    """The worker's end. One thread writes: the one that trains.

    Args:
        path: the page; made if missing. An agent gives a path of an anonymous memory file.

    Raises:
        OSError: the page cannot be made.
    """

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(fd, 0, PAGE_BYTES)  # a sparse page on a full disk would end the worker with SIGBUS
            page = memoryview(mmap.mmap(fd, PAGE_BYTES))
        finally:
            os.close(fd)
        self._words = page.cast("q")
        self._times = page.cast("d")
        self.phase(0, 0, Phase.BOOTING)
        self._words[_MAGIC_WORD] = _MAGIC

    def phase(self, generation: int, step: int, phase: Phase) -> None:
        """Publishes where the worker is: ``generation`` it works in, last ``step`` voted, ``phase`` it enters now."""
        counter = self._words[_COUNTER] + 1
        slot = _SLOTS[counter & 1]
        now_s = time.monotonic()
        self._words[slot] = generation
        self._words[slot + 1] = step
        self._words[slot + 2] = _PHASE_NUMBERS[phase]
        self._times[slot + 3] = now_s
        self._words[_COUNTER] = counter
        self._times[_TOUCHED] = now_s

    def touch(self) -> None:
        """Shows that the worker runs, also where its phase does not change, as while it waits in a collective."""
        self._times[_TOUCHED] = time.monotonic()


def read_progress(path: str, now_monotonic_s: float) -> Progress:
    """One sample of the page at ``path``, ages relative to ``now_monotonic_s``; ``Progress()`` where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Progress()
    try:
        if os.fstat(fd).st_size < PAGE_BYTES:
            return Progress()
        with (
            mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ) as page,
            memoryview(page) as view,
            view.cast("q") as words,
            view.cast("d") as times,
        ):
            return _sample(words, times, now_monotonic_s)
    finally:
        os.close(fd)


def _sample(words: memoryview[int], times: memoryview[float], now_s: float) -> Progress:
    if words[_MAGIC_WORD] != _MAGIC:
        return Progress()
    while True:
        counter = words[_COUNTER]
        slot = _SLOTS[counter & 1]
        generation, step, number, since_s = words[slot], words[slot + 1], words[slot + 2], times[slot + 3]
        if words[_COUNTER] == counter:  # else the writer lapped us, and may have begun to fill this slot again
            return Progress(
                generation=generation,
                step=step,
                phase=_PHASES[number],
                phase_age_s=max(0.0, now_s - since_s),
                alive_age_s=max(0.0, now_s - times[_TOUCHED]),
            )
