"""The folder in memory that belongs to an agent: one for each agent folder, on the system's own memory file system."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

MEMORY_VARIABLE = "TRAINCTL_MEMORY_DIR"
"""Tells workers the folder in which their agent lets them keep snapshots; empty: none."""
FAILURE_DOMAIN_VARIABLE = "TRAINCTL_FAILURE_DOMAIN"
"""Tells workers what their node fails together with, such as its rack; empty: with no other node."""
_SHARED_MEMORY = Path("/dev/shm")


def memory_folder(agent_folder: Path) -> Path:
    """Where the agent of a folder keeps what shall outlive its workers, but not the machine; it need not exist."""
    digest = hashlib.sha256(str(agent_folder.absolute()).encode()).hexdigest()[:16]
    return _SHARED_MEMORY / f"trainctl-{os.geteuid()}-{digest}"


def claim_memory_folder(folder: Path) -> str:
    """Makes it for this user alone; why that cannot be, or nothing.

    Everybody may write to shared memory, so what is there already has to be ours.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return f"{folder} is there already, and not a folder that only this user may use"
    return ""


def remove_memory_folder(folder: Path) -> None:
    """Removes it with all that is in it, if it is ours."""
    if folder.is_dir() and not claim_memory_folder(folder):
        shutil.rmtree(folder, ignore_errors=True)
