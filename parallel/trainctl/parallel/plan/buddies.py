"""Who keeps a copy of whose snapshot: a rank on another node, so that one node may go without the snapshot going."""

from __future__ import annotations

from collections.abc import Sequence


def buddies(nodes: Sequence[str]) -> tuple[int | None, ...]:
    """For each rank, the rank that keeps a copy of its part; None where all ranks are on one node.

    The ranks of a node are spread over those of the next one, so that two nodes that fail together are two neighbours
    at worst.

    Args:
        nodes: of each rank, in rank order.
    """
    ranks: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        ranks.setdefault(node, []).append(rank)
    if len(ranks) < 2:
        return (None,) * len(nodes)
    order = list(ranks)
    found: dict[int, int] = {}
    for index, node in enumerate(order):
        keepers = ranks[order[(index + 1) % len(order)]]
        found.update({rank: keepers[number % len(keepers)] for number, rank in enumerate(ranks[node])})
    return tuple(found[rank] for rank in range(len(nodes)))
