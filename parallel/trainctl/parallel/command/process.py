"""One run of the command: a process group that is started, minded and ended as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from trainctl.core.system.deadline import Deadline, comes_true
from trainctl.core.system.processes import die_with_parent
from trainctl.parallel.command.guard import Guard
from trainctl.parallel.command.program import Program
from trainctl.parallel.plan.command_errors import CommandUnusableError

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.01
_CHUNK_BYTES = 1 << 16
_DRAIN_S = 0.5


def _adopt_orphans() -> None:
    """What the command leaves behind becomes a child of this process, which so knows when the whole group has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class CommandProcess:
    """The command, running. Make it on the main thread: the kernel ends it with the thread that started it.

    Args:
        program: what to run.
        env: its whole environment.
        guard: ends its group should this process be killed.
        on_output: called, on another thread, when it printed something; None hands it our own output, unread.

    Raises:
        CommandUnusableError: the kernel refuses to start it.
    """

    def __init__(
        self, program: Program, env: Mapping[str, str], guard: Guard, *, on_output: Callable[[], None] | None
    ) -> None:
        self._guard = guard
        self._code: int | None = None
        self._empty = False
        self._pump: threading.Thread | None = None
        _adopt_orphans()
        output = None
        read_end, write_end = os.pipe2(os.O_CLOEXEC) if on_output is not None else (-1, -1)
        if on_output is not None:
            output = write_end
        try:
            process = subprocess.Popen(
                program.arguments,
                cwd=program.folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        except (OSError, ValueError) as error:
            if read_end >= 0:
                os.close(read_end)
            raise CommandUnusableError(f"spec.command: {program.arguments[0]} cannot be started: {error}") from error
        finally:
            if write_end >= 0:
                os.close(write_end)
        self.pid = process.pid
        process.returncode = 0  # it is waited for here, as a part of its group
        guard.watch(self.pid)
        if on_output is not None:
            self._pump = threading.Thread(target=_pump, args=(read_end, on_output), name="command-output", daemon=True)
            self._pump.start()

    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs. What it left in its group is ended then."""
        self._reap()
        if self._code is not None:
            self._end_group()
        return self._code

    def stop(self, grace_s: float, idle: Callable[[], None]) -> None:
        """SIGTERM to its group, and SIGKILL to whatever of it is left after ``grace_s``; then nothing of it is left.

        Args:
            grace_s: seconds that the group has to end in good order.
            idle: called again and again meanwhile.
        """

        def empty() -> bool:
            idle()
            self._reap()
            return self._empty

        self._reap()
        self._signal(signal.SIGTERM)
        comes_true(empty, Deadline(grace_s), _POLL_S)
        self._end_group()

    def _end_group(self) -> None:
        while not self._empty:
            self._signal(signal.SIGKILL)
            time.sleep(_POLL_S)
            self._reap()
        self._guard.watch(0)
        if self._pump is not None:
            self._pump.join(_DRAIN_S)  # its last words; a process that left the group may hold the pipe for longer

    def _signal(self, number: signal.Signals) -> None:
        if not self._empty:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _reap(self) -> None:
        """Collects everybody of the group who ended."""
        while not self._empty:
            try:
                ended = os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                self._empty = True
                return
            if ended is None:
                return
            if ended.si_pid == self.pid:
                self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _pump(read_end: int, on_output: Callable[[], None]) -> None:
    """Hands the command's output on, as it comes."""
    with contextlib.suppress(OSError):  # nobody takes our output any more: this process is about to end
        while data := os.read(read_end, _CHUNK_BYTES):
            on_output()
            while data:
                data = data[os.write(1, data) :]
    os.close(read_end)
