"""Runs of lines that stand in two places."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """The same lines in two places.

    Attributes:
        num_lines: lines of code in it.
        first, second: where it begins: file and line, from 1.
    """

    num_lines: int
    first: tuple[Path, int]
    second: tuple[Path, int]

    def __str__(self) -> str:
        places = " and ".join(f"{path}:{line}" for path, line in (self.first, self.second))
        return f"{self.num_lines} lines in {places}"


def duplicates(lines: Mapping[Path, Sequence[tuple[int, str]]], longer_than: int) -> tuple[Run, ...]:
    """All runs of more than ``longer_than`` lines that stand in two places, the longest first.

    A run is reported once for every pair of neighbouring places; runs that overlap themselves are none.

    Args:
        lines: number and text of every line that counts, by file.
        longer_than: so many equal lines are no finding yet.
    """
    size = longer_than + 1
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path, kept in lines.items():
        words = [line for _, line in kept]
        for at in range(len(words) - size + 1):
            places[tuple(words[at : at + size])].append((path, at))
    pairs = {pair for found in places.values() for pair in itertools.pairwise(found)}
    return tuple(sorted((run for pair in pairs if (run := _run(pair, pairs, lines, size))), reverse=True))


def _run(
    pair: tuple[tuple[Path, int], tuple[Path, int]],
    pairs: set[tuple[tuple[Path, int], tuple[Path, int]]],
    lines: Mapping[Path, Sequence[tuple[int, str]]],
    size: int,
) -> Run | None:
    """The run that begins with a pair of equal windows; None where the run began before."""
    (one, at), (other, also) = pair
    if ((one, at - 1), (other, also - 1)) in pairs or (one == other and also - at < size):
        return None
    more = 0
    while ((one, at + more + 1), (other, also + more + 1)) in pairs:
        more += 1
    return Run(size + more, (one, lines[one][at][0]), (other, lines[other][also][0]))
