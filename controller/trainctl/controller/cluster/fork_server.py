"""The fork server that the agents of a local installation share, so that torch is loaded once and not once an agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainctl.core.system.processes import end_child
from trainctl.core.system.unix_socket import listen

_SOCKET = "fork-server.sock"
_LOG = "fork-server.log"
_END_WITHIN_S = 5.0


class SharedForkServer:
    """Runs for as long as the controller; the fork servers that agents got from it live on.

    It is not started again should it end: then agents start fork servers of their own, which only takes longer.

    Args:
        folder: of the installation, where its socket and its log lie.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / _SOCKET
        # Made here, so that no agent comes too early: until all is loaded, they wait in the socket's queue.
        with listen(self.socket) as listener, (folder / _LOG).open("ab") as log:
            command = [
                *(sys.executable, "-m", "trainctl.agent.forkserver"),
                *("--listener", str(listener.fileno()), "--parent", str(os.getpid())),
            ]
            self._process = subprocess.Popen(
                command,
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads of numpy would not survive a fork
                start_new_session=True,
            )

    def close(self) -> None:
        """Ends it, and sees to it that nobody waits there for what does not come."""
        self.socket.unlink(missing_ok=True)
        end_child(self._process, _END_WITHIN_S)
