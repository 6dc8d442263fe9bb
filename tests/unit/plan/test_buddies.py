"""Who keeps a copy of whose part of a snapshot, and who sends which file when nodes are gone.

Without it a rank and the copy of its part could be lost with one rack.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainctl.parallel.plan.buddies import buddies, together
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


@st.composite
def placed(draw: st.DrawFn) -> tuple[list[str], dict[str, str]]:
    """Ranks on nodes, and the domains that some of these name."""
    nodes = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=24))
    named = draw(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["", "r1", "r2", "r3", "a"])))
    return nodes, named


def size_of_domains(nodes: list[str], domains: dict[str, str]) -> list[int]:
    """How many nodes each has; one that names none is alone, also where another's domain is called as it is."""
    return sorted(Counter((bool(domains.get(node)), domains.get(node) or node) for node in set(nodes)).values())


@given(placed())
def test_copies_are_in_another_domain_as_far_as_there_are_others(case: tuple[list[str], dict[str, str]]) -> None:
    nodes, domains = case
    found = buddies(nodes, domains)
    assert found == buddies(nodes, dict(reversed(domains.items())))
    alike = together(nodes, found, domains)
    keepers = {nodes[rank]: nodes[buddy] for rank, buddy in enumerate(found) if buddy is not None}
    if len(set(nodes)) == 1:
        assert (keepers, alike) == ({}, ())
        return
    assert all(node != keeper for node, keeper in keepers.items())
    assert sorted(keepers.values()) == sorted(set(nodes)), "each keeps the parts of one other node"
    largest = size_of_domains(nodes, domains)[-1]
    stay = {nodes[rank] for rank in alike}
    assert len(stay) == max(0, 2 * largest - len(set(nodes))), "no more than have to"
    assert len({domains[node] for node in stay}) <= 1
    assert alike == tuple(rank for rank, node in enumerate(nodes) if node in stay)


@given(placed())
def test_one_domain_may_go(case: tuple[list[str], dict[str, str]]) -> None:
    nodes, domains = case
    found = buddies(nodes, domains)
    if size_of_domains(nodes, domains)[-1] * 2 > len(set(nodes)):
        return
    for lost in {domains.get(node) or node for node in nodes}:
        gone = {node for node in nodes if domains.get(node) == lost} or {lost}
        for rank, buddy in enumerate(found):
            assert buddy is not None
            assert {nodes[rank], nodes[buddy]} - gone


@given(NODES)
def test_nodes_that_name_no_domain_are_as_they_were(nodes: list[str]) -> None:
    """A ring in the order of the ranks."""
    order = list(dict.fromkeys(nodes))
    after = {node: order[(index + 1) % len(order)] for index, node in enumerate(order)}
    for rank, buddy in enumerate(buddies(nodes)):
        assert buddy is None if len(order) == 1 else nodes[buddy or 0] == after[nodes[rank]]


def test_two_racks() -> None:
    racks = {"a": "r1", "b": "r1", "c": "r2", "d": "r2"}
    assert buddies(list("abcd"), racks) == (2, 3, 0, 1)
    assert together(list("abcd"), buddies(list("abcd"), racks), racks) == ()
    alone = dict.fromkeys("abcd", "r1")
    assert buddies(list("aabb"), alone) == (2, 3, 0, 1)
    assert together(list("aabb"), buddies(list("aabb"), alone), alone) == (0, 1, 2, 3)
    assert together(list("abcd"), buddies(list("abcd"), {**racks, "c": "r1"}), {**racks, "c": "r1"}) == (0, 1)


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
