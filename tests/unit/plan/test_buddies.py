"""Who keeps a copy of whose part of a snapshot, and who sends which file when nodes are gone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainctl.parallel.plan.buddies import buddies
from trainctl.parallel.plan.fetching import plan_fetches

NODES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=24)


@given(NODES)
def test_a_buddy_is_on_another_node_and_nobody_keeps_too_many(nodes: list[str]) -> None:
    found = buddies(nodes)
    assert len(found) == len(nodes)
    if len(set(nodes)) == 1:
        assert set(found) == {None}
        return
    kept = Counter[int]()
    for rank, buddy in enumerate(found):
        assert buddy is not None
        assert nodes[buddy] != nodes[rank]
        kept[buddy] += 1
    sizes = Counter(nodes)
    assert max(kept.values()) <= -(-max(sizes.values()) // min(sizes.values()))


@given(NODES)
def test_one_node_may_go(nodes: list[str]) -> None:
    """Each part is on its own node and on its buddy's: whichever node is lost, another has it."""
    found = buddies(nodes)
    if len(set(nodes)) == 1:
        return
    for lost in set(nodes):
        for rank, buddy in enumerate(found):
            assert buddy is not None
            assert {nodes[rank], nodes[buddy]} - {lost}


FILES = [f"f{number}" for number in range(6)]
HELD = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.sampled_from(FILES)))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), HELD, HELD)
def test_every_node_gets_what_it_lacks_once(
    nodes: list[str], held: dict[str, frozenset[str]], wanted: dict[str, frozenset[str]]
) -> None:
    sizes = {path: 10 * (number + 1) for number, path in enumerate(FILES)}
    plan = plan_fetches(nodes, held, wanted, sizes)
    came: Counter[tuple[str, str]] = Counter()
    for fetch in plan.fetches:
        source, destination = nodes[fetch.source], nodes[fetch.destination]
        assert (fetch.source, fetch.destination) == (nodes.index(source), nodes.index(destination))
        assert source != destination
        assert set(fetch.paths) <= held[source]
        came.update((destination, path) for path in fetch.paths)
    present = {node: held.get(node, frozenset()) for node in nodes}
    everything = frozenset().union(*present.values())
    for node in present:
        lacking = wanted.get(node, frozenset()) - present[node]
        assert {path for (there, path) in came if there == node} == lacking & everything
        assert lacking - everything <= set(plan.missing)
    assert set(came.values()) <= {1}


def test_the_bytes_are_spread_over_those_who_have_them() -> None:
    sizes = {path: 100 for path in FILES}
    plan = plan_fetches(["a", "b", "c"], {"a": set(FILES), "b": set(FILES)}, {"c": set(FILES)}, sizes)
    assert sorted(len(fetch.paths) for fetch in plan.fetches) == [3, 3]
