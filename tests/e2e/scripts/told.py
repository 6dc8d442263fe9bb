"""What the scripts of this folder have in common: they write down what they see, and fail or hang on purpose, once."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

_NAMES = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "TORCHELASTIC_RESTART_COUNT")


def options() -> argparse.Namespace:
    """What they were told on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--behave", default="", help="exit:RANK:STEP:CODE[:TIMES] or hang:RANK:STEP or mute:RANK:STEP")
    parser.add_argument("--beat", action="store_true")
    return parser.parse_args()


def note(folder: Path) -> None:
    """Appends to ``seen.jsonl`` what this rank sees of its environment."""
    seen = {name: int(os.environ[name]) for name in _NAMES}
    seen |= {"RANK": int(os.environ["RANK"]), "generation": int(os.environ["TRAINCTL_GENERATION"]), "pid": os.getpid()}
    with (folder / "seen.jsonl").open("a") as file:
        file.write(json.dumps(seen) + "\n")


def behave(told: argparse.Namespace, folder: Path, rank: int, step: int) -> None:
    """Does what is to happen at this step of this rank; then gives a sign of life."""
    if told.behave:
        _behave(told.behave, folder, rank, step)
    if told.beat:
        Path(os.environ["TRAINCTL_HEARTBEAT_FILE"]).touch()


def _behave(wish: str, folder: Path, rank: int, step: int) -> None:
    kind, at_rank, at_step, *more = wish.split(":")
    if (rank, step) != (int(at_rank), int(at_step)):
        return
    times = int(more[1]) if len(more) > 1 else 1
    marks = [folder / f"mark-{number}" for number in range(times)]
    mark = next((mark for mark in marks if not mark.exists()), None)
    if mark is None:
        return
    mark.touch()
    print(f"rank {rank} does as it was told: {wish}", flush=True)
    if kind == "exit":
        sys.exit(int(more[0]))
    while True:  # hangs, also against SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
