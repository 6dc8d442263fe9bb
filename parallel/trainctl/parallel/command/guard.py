"""The guard of a command: a small process that ends the command's process group should the launcher be killed.

The kernel ends the command itself then (``die_with_parent``), but not what the command started. Run as a script,
without the rest of this package, so that it is there in some 10 ms and occupies little memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


class Guard:
    """The launcher's end; it must be told of every group before there is something to lose."""

    def __init__(self) -> None:
        read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        try:
            # A session of its own: what ends the launcher's process group must not end the guard first.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__], stdin=read_end, start_new_session=True
            )
        finally:
            os.close(read_end)

    def watch(self, group: int) -> None:
        """From now on process group ``group`` ends with this process; 0: nothing is to be ended."""
        with contextlib.suppress(BrokenPipeError):  # killed by somebody: the kernel's part is still there
            os.write(self._write_end, f"{group}\n".encode())

    def close(self) -> None:
        """Ends it."""
        os.close(self._write_end)
        self._process.wait()


def main() -> None:
    """Reads groups, one a line; when the launcher is gone, ends the last one."""
    group = 0
    for line in sys.stdin:
        group = int(line)
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
