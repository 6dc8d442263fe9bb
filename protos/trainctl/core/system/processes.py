"""Processes by identity: a pid alone may belong to somebody else by now."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process, surely: its pid and its start time in clock ticks since boot."""

    pid: int
    start_ticks: int


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process, None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process, None if there is none."""
    stat = _stat(pid)
    return None if stat is None else ProcessId(pid=pid, start_ticks=stat[1])


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    stat = _stat(process.pid)
    return stat is not None and stat[1] == process.start_ticks and stat[0] not in "ZX"


def send_signal(process: ProcessId, number: signal.Signals) -> bool:
    """Signals exactly this process; False if it is gone (never another one that took its pid)."""
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to SIGKILL this process when its parent thread dies; ends at once if that already happened."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
