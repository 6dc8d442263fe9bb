"""The progress page: 4 KiB of memory shared by a worker and its agent, in which the worker says where it is.

Two slots and a counter: the writer fills the slot that nobody reads, then raises the counter, so a reader always finds
one whole sample, also when the writer was killed in the middle of a write. The time of the last touch stands apart, as
one aligned 8-byte word. A write costs about a microsecond and makes no system call but the clock's.

Layout in 8-byte words: 0 magic, 1 counter, 2 last touch, 8 and 16 the two slots of (generation, step, phase, since);
for the save or load that goes on a counter and slots of their own: 3 counter, 24 and 32 (kind, 0 for none, step, bytes
done, bytes in all, since, how many go on).
A page that says what cannot be, as a worker that writes where it should not may leave it, reads as ``GARBLED``.
Times are CLOCK_MONOTONIC seconds, which all processes of one machine share. The order of the stores is the program's:
guaranteed on x86-64; on weaker machines the interpreter's own work lies between them.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import Mapping

from trainctl.core.records.part import Transfer, TransferKind
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Progress

PAGE_BYTES = 4096
_MAGIC = 0x7472636C70670001  # "trclpg", version 1
_MAGIC_WORD, _COUNTER, _TOUCHED, _TRANSFER_COUNTER = 0, 1, 2, 3
_SLOTS = (8, 16)
_TRANSFER_SLOTS = (24, 32)
_KINDS = (None, *TransferKind)
_PHASES = tuple(Phase)
_PHASE_NUMBERS: Mapping[Phase, int] = {phase: number for number, phase in enumerate(_PHASES)}
GARBLED = Phase("garbled")
_MOST = 2**31 - 1
"""Of a generation, a step or a count, as they go to the controller."""
_LONGEST_S = 1e9
_TRIES = 1000
"""To read a slot while nobody writes to it; a writer fills one in a microsecond, once in many milliseconds."""


class ProgressWriter:
    """The worker's end. One thread writes phases: the one that trains; any one at a time writes transfers.

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

    def transfer(self, transfer: Transfer | None, since_s: float) -> None:
        """Publishes how far the save or load is that goes on since then (CLOCK_MONOTONIC); None: nothing goes on."""
        counter = self._words[_TRANSFER_COUNTER] + 1
        slot = _TRANSFER_SLOTS[counter & 1]
        if transfer is None:
            self._words[slot] = 0
        else:
            self._words[slot] = _KINDS.index(transfer.kind)
            self._words[slot + 1] = transfer.step
            self._words[slot + 2] = transfer.done_bytes
            self._words[slot + 3] = transfer.total_bytes
            self._times[slot + 4] = since_s
            self._words[slot + 5] = transfer.in_flight
        self._words[_TRANSFER_COUNTER] = counter

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
    alive_age_s = _age_s(times[_TOUCHED], now_s)
    for _ in range(_TRIES):
        counter = words[_COUNTER]
        slot = _SLOTS[counter & 1]
        generation, step, number, since_s = words[slot], words[slot + 1], words[slot + 2], times[slot + 3]
        if words[_COUNTER] != counter:  # the writer lapped us, and may have begun to fill this slot again
            continue
        if not (_fit(generation, step) and 0 <= number < len(_PHASES)):
            break
        return Progress(
            generation=generation,
            step=step,
            phase=_PHASES[number],
            phase_age_s=_age_s(since_s, now_s),
            alive_age_s=alive_age_s,
            transfer=_transfer(words, times, now_s),
        )
    return Progress(phase=GARBLED, alive_age_s=alive_age_s)


def _transfer(words: memoryview[int], times: memoryview[float], now_s: float) -> Transfer | None:
    for _ in range(_TRIES):
        counter = words[_TRANSFER_COUNTER]
        slot = _TRANSFER_SLOTS[counter & 1]
        number, step, done, total, since_s = *words[slot : slot + 4], times[slot + 4]
        in_flight = words[slot + 5]
        if words[_TRANSFER_COUNTER] != counter:
            continue
        kind = _KINDS[number] if 0 <= number < len(_KINDS) else None
        if kind is None or not _fit(step, in_flight) or min(done, total) < 0:
            return None
        return Transfer(
            kind=kind,
            step=step,
            done_bytes=done,
            total_bytes=total,
            age_s=_age_s(since_s, now_s),
            in_flight=in_flight,
        )
    return None


def _fit(*numbers: int) -> bool:
    return min(numbers) >= 0 and max(numbers) <= _MOST


def _age_s(since_s: float, now_s: float) -> float:
    age_s = now_s - since_s
    return _LONGEST_S if math.isnan(age_s) else min(max(0.0, age_s), _LONGEST_S)
