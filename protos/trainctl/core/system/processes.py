"""Processes by identity: a pid alone may belong to somebody else by now."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainctl.core.errors import PermissionDeniedError
from trainctl.core.system.deadline import Deadline

if TYPE_CHECKING:
    import subprocess

KILLED_S = 10.0
"""How long a process may take to end that was killed: as long as its last call of the kernel."""
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


def wait_for_end(processes: Sequence[ProcessId], limit_s: float) -> list[ProcessId]:
    """Waits until all have ended, together no longer than ``limit_s``; those that have not."""
    deadline = Deadline(limit_s)
    return [process for process in processes if not _ends_by(process, deadline)]


def _ends_by(process: ProcessId, deadline: Deadline) -> bool:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):  # what was opened may be another one, which took its pid
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(1000 * deadline.left_s))
    finally:
        os.close(descriptor)


def end_processes(processes: Sequence[ProcessId], grace_s: float) -> list[ProcessId]:
    """Ends exactly these processes: SIGTERM, so long to obey, then SIGKILL and up to ``KILLED_S``.

    Returns:
        Those that had to be killed. One that hangs in the kernel is alive even then.

    Raises:
        PermissionDeniedError: one belongs to somebody else.
    """
    _signal(processes, signal.SIGTERM)
    killed = wait_for_end(processes, grace_s)
    _signal(killed, signal.SIGKILL)
    wait_for_end(killed, KILLED_S)
    return killed


def _signal(processes: Sequence[ProcessId], number: signal.Signals) -> None:
    for process in processes:
        try:
            send_signal(process, number)
        except PermissionError as error:
            raise PermissionDeniedError(
                f"process {process.pid} belongs to somebody else", hint="stop it as the user who started it"
            ) from error


def end_child(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ends a child of this process in the same way, and reaps it."""
    if child.poll() is None and (process := identify(child.pid)) is not None:
        end_processes([process], grace_s)
    child.wait()


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to SIGKILL this process when its parent thread dies; ends at once if that already happened."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
