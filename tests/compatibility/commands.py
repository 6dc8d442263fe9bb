"""The command line as somebody at a terminal runs it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path


async def command(folder: Path, address: str, *arguments: str) -> tuple[int, str]:
    """Runs the real command line against an address; its exit code and all that it says."""
    environment = {**os.environ, "TRAINCTL_HOME": str(folder), "TRAINCTL_CONFIG": "", "NO_COLOR": "1"}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "trainctl.cli", *arguments, "--address", address, "--token-file", str(folder / "token")],
        env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
