"""What came from a storage with wrong bytes and, read again, was right: bytes may be changed on their way, too.

It is no damage and stops nothing, but a network, a memory or a disk that does so more often is to be found.
"""

from __future__ import annotations

import logging
import threading

_LOG = logging.getLogger("trainctl.checkpoint")


class Rereads:
    """Counts them; threads may share it.

    Attributes:
        healed: how many so far.
    """

    def __init__(self) -> None:
        self.healed = 0
        self._lock = threading.Lock()

    def heal(self, where: str) -> None:
        """One more: what was read again at ``where`` is right."""
        _LOG.warning("%s came with wrong bytes; read again, they are right", where)
        with self._lock:
            self.healed += 1
