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
    """When a side had the machine, Unix seconds, and the processor seconds that it used."""

    side: str
    begin_s: float
    end_s: float
    cpu_s: float

    def cpu_per_step_s(self, commits: Iterable[tuple[int, float]]) -> float:
        """Processor seconds for a step."""
        return self.cpu_s / (self.steps_per_s(commits) * (self.end_s - self.begin_s))

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
                begin_s, used_s = time.time(), tree_cpu_s(roots[side])
                time.sleep(seconds)
                yield Turn(side, begin_s, time.time(), tree_cpu_s(roots[side]) - used_s)
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


def tree_cpu_s(root: int) -> float:
    """Processor seconds, user's and kernel's, that a process and all below it have used so far."""
    ticks = 0
    for pid in descendants(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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
