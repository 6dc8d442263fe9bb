"""Who keeps a copy of whose snapshot: a rank on another node, in another failure domain as far as that is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def buddies(nodes: Sequence[str], domains: Mapping[str, str] | None = None) -> tuple[int | None, ...]:
    """For each rank, the rank that keeps a copy of its part; None where all ranks are on one node.

    Every node keeps copies of one other node's parts, so that none needs room for more than that. Where no failure
    domain has more than half of the nodes, every copy is in another domain than its part; otherwise as many are as the
    nodes of the other domains can keep, and the rest are on another node of the same one (``together`` says which).

    The ranks of a node are spread over those of the one that keeps their parts.

    Args:
        nodes: of each rank, in rank order.
        domains: failure domain of each node; a node that is not in it is one of its own.
    """
    ranks: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        ranks.setdefault(node, []).append(rank)
    if len(ranks) < 2:
        return (None,) * len(nodes)
    grouped: dict[tuple[bool, str], list[str]] = {}
    for node in ranks:
        grouped.setdefault(_domain(node, domains), []).append(node)
    order = [node for group in grouped.values() for node in group]
    # Domain by domain in a circle: a step as long as the longest leads out of each; where that is most of the circle,
    # one as long as the rest of it leads into the rest from as many nodes as that has.
    largest = max(map(len, grouped.values()))
    step = min(largest, len(order) - largest) or 1
    found: dict[int, int] = {}
    for index, node in enumerate(order):
        keepers = ranks[order[(index + step) % len(order)]]
        found.update({rank: keepers[number % len(keepers)] for number, rank in enumerate(ranks[node])})
    return tuple(found[rank] for rank in range(len(nodes)))


def together(
    nodes: Sequence[str], keepers: Sequence[int | None], domains: Mapping[str, str] | None = None
) -> tuple[int, ...]:
    """Ranks whose part and its copy are in one failure domain, ascending.

    Args:
        nodes: of each rank, in rank order.
        keepers: what ``buddies`` made of them.
        domains: failure domain of each node, as there.
    """
    return tuple(
        rank
        for rank, keeper in enumerate(keepers)
        if keeper is not None and _domain(nodes[rank], domains) == _domain(nodes[keeper], domains)
    )


def _domain(node: str, domains: Mapping[str, str] | None) -> tuple[bool, str]:
    """A node that names none has one that no other can be in, whatever they are called."""
    named = (domains or {}).get(node, "")
    return (True, named) if named else (False, node)
