"""Two programs that run at once, but in turns: while one has the machine, all processes of the other are stopped.

A machine that others use changes its speed by a tenth within a minute. What is compared over turns of seconds, each
against its neighbour, meets the same machine.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Turn:
    """When a side had the machine, Unix seconds."""

    side: str
    begin_s: float
    end_s: float

    def steps_per_s(self, commits: Iterable[tuple[int, float]]) -> float:
        """Between the first and the last commit of this turn; 0 if there were less than two."""
        inside = sorted(at_s for _, at_s in commits if self.begin_s <= at_s <= self.end_s)
        return (len(inside) - 1) / (inside[-1] - inside[0]) if len(inside) > 1 else 0.0


def take_turns(roots: dict[str, int], *, turns: int, seconds: float) -> Iterator[Turn]:
    """Gives each side ``turns`` turns; the sides are stopped and continued with all that they started.

    Args:
        roots: for each side its first process.
        turns: of each.
        seconds: of a turn.
    """
    try:
        for number in range(turns):
            order = list(roots) if number % 2 else list(reversed(roots))
            for side in order:
                for other in roots:
                    signal_tree(roots[other], signal.SIGCONT if other == side else signal.SIGSTOP)
                begin_s = time.time()
                time.sleep(seconds)
                yield Turn(side, begin_s, time.time())
    finally:
        for root in roots.values():
            signal_tree(root, signal.SIGCONT)


def signal_tree(root: int, number: signal.Signals) -> None:
    """Signals a process and all below it: those above first when they stop, last when they go on."""
    pids = descendants(root)
    for pid in pids if number is signal.SIGSTOP else reversed(pids):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def descendants(root: int) -> Sequence[int]:
    """A process and all that it and they started, parents before children."""
    found = [root]
    for pid in found:
        found.extend(_children(pid))
    return found


def _children(pid: int) -> list[int]:
    children = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        return children
    return children
