"""Importing once what all children need."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
import traceback
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What it took.

    Attributes:
        seconds: of the imports.
        threads: that this process has afterwards; anything but 1 makes forking unsafe.
    """

    seconds: float
    threads: int


def preload(modules: tuple[str, ...]) -> Preloaded:
    """Imports ``modules`` once for all children.

    A module that cannot be imported is no reason to stop: the child that needs it will say so in its own log.
    """
    start_s = time.monotonic()
    gc.disable()  # a fifth of the time would go into looking again and again through what stays
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"fork server: cannot preload {name}: {error}", file=sys.stderr)
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # keeps the children's collections from touching, and so copying, the shared pages
    gc.enable()
    return Preloaded(time.monotonic() - start_s, threads=len(os.listdir("/proc/self/task")))
