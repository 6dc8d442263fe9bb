"""An installation that had TLS and is told to go on without: its own agents must not insist on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

TLS_FOLDER = "tls"
"""Name of the folder in that of an agent."""


def forget_certificates(folder: Path, names: Iterable[str]) -> None:
    """Removes what the controller's own agents kept of their certificates. Agents elsewhere are their operators'."""
    for name in names:
        shutil.rmtree(folder / name / TLS_FOLDER, ignore_errors=True)
