"""The most memory that this process had at once while something went on."""

from __future__ import annotations

import os
from pathlib import Path

_RESET_PEAK = "5"


class Peak:
    """From ``begin`` to ``extra_bytes``; the system keeps the mark."""

    def __init__(self) -> None:
        self._before_bytes = 0

    def begin(self) -> None:
        """What is resident now is what there was before."""
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        self._before_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def extra_bytes(self) -> int:
        """How much more there was at some moment since."""
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return max(0, int(peak) * 1024 - self._before_bytes)
