"""Which right is missing on a local path: that of a folder above it may be."""

from __future__ import annotations

import os
from pathlib import Path


def missing_right(path: str) -> str:
    """What this user may not do, and where, such as ``write into /data``; empty where it cannot be told."""
    target = Path(path)
    for folder in reversed(target.parents):
        if not os.access(folder, os.F_OK):
            break
        if not os.access(folder, os.X_OK):
            return f"enter {folder}"
    nearest = next((each for each in (target, *target.parents) if os.access(each, os.F_OK)), target)
    inside = [("read", os.R_OK), ("enter", os.X_OK), ("write into", os.W_OK)]
    rights = inside if nearest.is_dir() else [("read", os.R_OK), ("write", os.W_OK)]
    if nearest != target:
        rights = rights[-1:]
    return next((f"{name} {nearest}" for name, right in rights if not os.access(nearest, right)), "")
