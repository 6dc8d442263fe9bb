"""Which node gets which files of a snapshot from whom: made pure and alike on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetch:
    """One rank sends files to a rank of another node.

    Attributes:
        source: rank that sends.
        destination: rank that receives, for its node.
        paths: what, in order.
    """

    source: int
    destination: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """Fetches by source and destination, and the files that somebody wants and nobody has."""

    fetches: tuple[Fetch, ...]
    missing: tuple[str, ...]


def plan_fetches(
    nodes: Sequence[str],
    held: Mapping[str, AbstractSet[str]],
    wanted: Mapping[str, AbstractSet[str]],
    sizes: Mapping[str, int],
) -> FetchPlan:
    """Every wanted file goes to every node that lacks it, once; the bytes are spread over the nodes that have it.

    Args:
        nodes: of each rank, in rank order; the first rank of a node sends and receives for it.
        held: paths by node.
        wanted: paths by node.
        sizes: in bytes, of every path.
    """
    speaker = {node: rank for rank, node in reversed(list(enumerate(nodes)))}
    load_bytes = dict.fromkeys(speaker, 0)
    found: dict[tuple[int, int], list[str]] = {}
    missing: set[str] = set()
    lacking = [(path, node) for node in speaker for path in wanted.get(node, frozenset()) - held.get(node, frozenset())]
    for path, node in sorted(lacking, key=lambda lack: (-sizes[lack[0]], lack[0], speaker[lack[1]])):
        sources = [other for other in speaker if path in held.get(other, frozenset())]
        if not sources:
            missing.add(path)
            continue
        source = min(sources, key=lambda other: (load_bytes[other], speaker[other]))
        load_bytes[source] += sizes[path]
        found.setdefault((speaker[source], speaker[node]), []).append(path)
    fetches = tuple(Fetch(source, destination, tuple(paths)) for (source, destination), paths in sorted(found.items()))
    return FetchPlan(fetches, tuple(sorted(missing)))
