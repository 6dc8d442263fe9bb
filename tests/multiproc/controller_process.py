"""A controller as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE_S


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainctl.controller", "--dir", str(folder), *arguments]


@contextmanager
def started(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        command(folder, *arguments), stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "controller serves" in line:
                break
        yield process, json.loads((folder / "controller.json").read_text())
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stderr.close()
