"""What only a process of its own can find out: torch, which this command never loads, and storage that may hang."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from trainctl.cli.doctor.facts import Torch
from trainctl.core.json_text import NoJsonError, parse_object

TORCH_S = 120.0
_KILLED_S = 2.0
"""After that a process is left to itself: one that waits for a dead disk ends when that answers."""


def torch(env: Mapping[str, str]) -> Torch:
    """Facts about torch and its devices."""
    found = ask("trainctl.parallel.doctor_probe", (), env, TORCH_S)
    return Torch(
        version=str(found.get("version", "")),
        error=str(found.get("error", "")),
        cuda=str(found.get("cuda", "")),
        backends=tuple(found.get("backends", ())),
        devices=tuple(found.get("devices", ())),
        device_error=str(found.get("deviceError", "")),
        all_reduce=str(found.get("allReduce", "")),
    )


def ask(module: str, arguments: tuple[str, ...], env: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
    """Runs a module of ours that prints one JSON object; what goes wrong is under ``error``."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILLED_S)
        return {"error": f"no answer within {timeout_s:g} s"}
    try:
        return parse_object(out.strip().splitlines()[-1])
    except (NoJsonError, IndexError):
        last = errors.strip().splitlines()
        return {"error": last[-1] if last else f"it ended with exit code {process.returncode}"}
