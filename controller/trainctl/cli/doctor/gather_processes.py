"""What only a process of its own can find out: torch, which this command never loads, and storage that may hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from trainctl.cli.doctor.facts import Torch

TORCH_S = 120.0
STORAGE_S = 20.0


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


def storage_error(uri: str, env: Mapping[str, str]) -> str:
    """Why a folder somewhere else cannot be listed, and what to do; empty if it can."""
    found = ask("trainctl.checkpoint.storage.probe", (uri,), env, STORAGE_S)
    hint = f" ({found['hint']})" if found.get("hint") else ""
    return f"{found.get('error', '')}{hint}"


def ask(module: str, arguments: tuple[str, ...], env: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
    """Runs a module of ours that prints one JSON object; what goes wrong is under ``error``."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:g} s"}
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()
        return {"error": last[-1] if last else f"it ended with exit code {done.returncode}"}
    return found if isinstance(found, dict) else {"error": "not an object"}
