"""State on its way between live ranks: the same as through a checkpoint, and nobody waits for one that is slow.

Without it a recovery could bring other values than a load of the same state, drop what a plan says that they become, be
held up by one rank, or look like a hang.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.engine import load
from trainctl.checkpoint.layout.combine import Cast, Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import CopyPlan, copy_plan
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.region import Flat, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import dtype_of
from trainctl.core.errors import CollectiveError, InternalError
from trainctl.parallel.collectives.wait import Interrupted, Waiter
from trainctl.parallel.recovery import copying
from trainctl.parallel.recovery.copying import StateCopy
from trainctl.parallel.recovery.transfer import messages
from unit.checkpoint.layouts import layouts, shape_tables
from unit.checkpoint.memory_exchange import MemoryExchange, PostOffice, at_once
from unit.checkpoint.ranks import flats, plain, rank_state, rows, same_bits, save
from waiting import PATIENCE_S

KEY = StateKey("w", "param", "F32", "island-0", StateVersion(1, 5))
Values = Mapping[StateKey, torch.Tensor]
CUTS: Mapping[str, Callable[[Values, int], Layout]] = {
    "whole": plain,
    "rows": rows,
    "columns": functools.partial(rows, dim=1),
    "flats": flats,
}


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few elements are many, whose parts are of several dtypes and begin anywhere."""
    monkeypatch.setattr(copying, "messages", functools.partial(messages, message_bytes=14))


def waiter(timeout_s: float = PATIENCE_S, *, aborted: Callable[[], bool] = lambda: False) -> Waiter:
    return Waiter(aborted=aborted, touch=nothing, where=lambda: "a test", timeout_s=timeout_s)


def copy_of(
    group: Any,
    plan: CopyPlan,
    source: LocalState,
    target: LocalState | None = None,
    *,
    wait: Waiter | None = None,
    reach: Callable[[str], None] = lambda point: None,
) -> StateCopy:
    return StateCopy(group, plan, source=source, target=target or source, waiter=wait or waiter(), reach=reach)


def random_values(shapes: Mapping[StateKey, tuple[int, ...]], seed: int = 0) -> Values:
    """Random bits."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randint(0, 256, (math.prod(shape) * key.item_bytes,), generator=generator, dtype=torch.uint8)
        .view(dtype_of(key.dtype))
        .reshape(shape)
        for key, shape in shapes.items()
    }


def states_of(values: Values, layout: Layout, size: int, *, blank: bool = False) -> list[LocalState]:
    return [
        rank_state(values, layout, holder, blank=blank) if holder in layout.holders else LocalState(())
        for holder in map(rank_holder, range(size))
    ]


def copied(plan: CopyPlan, sources: Sequence[LocalState], targets: Sequence[LocalState]) -> PostOffice:
    """All ranks at once; each gets what it was told."""
    office = PostOffice(len(sources))

    def one(exchange: MemoryExchange) -> bool:
        told: list[int] = []
        copy = copy_of(exchange, plan, sources[exchange.rank], targets[exchange.rank])
        return sum(copy.run(got=told.append).values()) == sum(told) == copy.wanted_bytes

    assert at_once(office, one) == [True] * len(sources)
    assert not office.left
    return office


@settings(max_examples=60, deadline=None)
@given(data=st.data(), step=st.sampled_from([6, 8]), dtype=st.sampled_from(["F32", "BF16", "F64"]))
def test_a_live_copy_comes_to_the_same_as_a_save_and_a_load(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, step: int, dtype: str
) -> None:
    shapes = data.draw(shape_tables())
    values = random_values(shapes)
    before = data.draw(
        st.sampled_from(sorted(CUTS)).flatmap(lambda cut: st.integers(1, 4).map(lambda n: CUTS[cut](values, n)))
    )
    after = data.draw(layouts(shapes, "rank"))
    # It is of another step then, and in another dtype: so what a rank has itself is copied, too.
    become = {key: key._replace(dtype=dtype, version=StateVersion(1, step)) for key in shapes}
    into = Layout(
        {become[key]: shape for key, shape in shapes.items()},
        {holder: {become[key]: held for key, held in keys.items()} for holder, keys in after.holders.items()},
    )
    terms = {new: (Term(old, None if old.dtype == dtype else Cast(dtype)),) for old, new in become.items()}
    size = max(len(before.holders), len(into.holders))
    blanks = {become[key]: torch.zeros(shape, dtype=dtype_of(dtype)) for key, shape in shapes.items()}
    live, stored = (states_of(blanks, into, size, blank=True) for _ in range(2))

    copied(copy_plan(before, into, terms=terms), states_of(values, before, size), live)

    ref = save(tmp_path_factory.mktemp("saved"), values, layout=before)
    for there, expected in zip(live, stored, strict=True):
        load(ref, expected, everything=into.shapes, cast=True)
        for one, other in zip(there.tensors, expected.tensors, strict=True):
            assert same_bits(one.tensor, other.tensor), (one.key, one.region)


NEXT = KEY._replace(version=StateVersion(1, 6))
WHOLE = (whole((8,)),)


def on_ranks(ranks: Sequence[int], key: StateKey = KEY) -> Layout:
    return replicated({key: (8,)}, map(rank_holder, ranks))


def eight(value: float = 0.0, key: StateKey = KEY) -> LocalState:
    return LocalState((StateTensor(key, (8,), WHOLE[0], torch.full((8,), value)),))


def test_more_ranks_than_are_served_at_once_all_with_each_other() -> None:
    values = random_values({KEY: (24, 24)})
    renamed = {NEXT: values[KEY]}
    before, after = rows(values, 24), rows(renamed, 24, dim=1)
    targets = states_of(renamed, after, 24, blank=True)
    plan = copy_plan(before, after, terms={NEXT: (Term(KEY),)})
    office = copied(plan, states_of(values, before, 24), targets)
    for there, expected in zip(targets, states_of(renamed, after, 24), strict=True):
        assert same_bits(there.tensors[0].tensor, expected.tensors[0].tensor)
    assert office.sent_bytes == 24 * 23 * 4, "nothing was sent to oneself"


def test_a_slow_source_does_not_hold_up_the_others() -> None:
    """Rank 0 sends nothing before rank 2 has all that comes from rank 1."""
    halves = Layout({KEY: (8,)}, {"rank:0": {KEY: (Flat(0, 4),)}, "rank:1": {KEY: (Flat(4, 8),)}})
    plan = copy_plan(halves, on_ranks([2]))
    from_the_other = threading.Event()

    def one(exchange: MemoryExchange) -> Mapping[str, int]:
        told: list[int] = []

        def got(size_bytes: int) -> None:
            told.append(size_bytes)
            if sum(told) == 16:
                from_the_other.set()

        if exchange.rank == 0:
            assert from_the_other.wait(PATIENCE_S)
        return copy_of(exchange, plan, eight(exchange.rank + 1.0)).run(got=got)

    assert at_once(PostOffice(3), one) == [{}, {}, {"rank 0": 16, "rank 1": 16}]


def test_a_slow_destination_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 takes nothing before rank 2 has all: more than may be in flight."""
    monkeypatch.setattr(copying, "messages", functools.partial(messages, message_bytes=4))
    plan = copy_plan(on_ranks([0]), on_ranks([1, 2]))
    the_other_has_all = threading.Event()

    def one(exchange: MemoryExchange) -> Mapping[str, int]:
        if exchange.rank == 1:
            assert the_other_has_all.wait(PATIENCE_S)
        received = copy_of(exchange, plan, eight()).run()
        if exchange.rank == 2:
            the_other_has_all.set()
        return received

    assert at_once(PostOffice(3), one) == [{}, {"rank 0": 32}, {"rank 0": 32}]


def test_every_message_that_is_there_counts_and_the_first_is_announced() -> None:
    target, seen = eight(), list[object]()
    plan = copy_plan(on_ranks([0]), on_ranks([1]))

    def one(exchange: MemoryExchange) -> object:
        if exchange.rank == 0:
            return copy_of(exchange, plan, eight(2.0), reach=seen.append).run()
        copy = copy_of(exchange, plan, target)

        def writing() -> None:
            seen.append(sum(target.tensors[0].tensor.tolist()))

        return copy.run(writing=writing, got=lambda size: seen.append((size, sum(target.tensors[0].tensor.tolist()))))

    at_once(PostOffice(2), one)
    assert [what for what in seen if what != "restore.send"] == [0.0, (12, 6.0), (12, 12.0), (8, 16.0)]
    assert seen.count("restore.send") == 3


def test_what_does_not_lie_together_is_copied_too() -> None:
    values = torch.randn(5, 7)
    key = KEY._replace(fqn="deep")

    def turned(tensor: torch.Tensor) -> LocalState:
        return LocalState((StateTensor(key, (7, 5), whole((7, 5)), tensor.t()),))

    target = turned(torch.zeros(5, 7))
    layout = replicated({key: (7, 5)}, map(rank_holder, range(2)))
    copied(copy_plan(layout.only(["rank:0"]), layout.only(["rank:1"])), [turned(values)] * 2, [turned(values), target])
    assert torch.equal(target.tensors[0].tensor, values.t())


def test_a_weighted_sum_is_refused_before_anything_is_copied() -> None:
    other = KEY._replace(fqn="v")
    terms = {NEXT: (Term(KEY, WeightedSum(0.25)), Term(other, WeightedSum(0.75)))}
    held = Layout({KEY: (8,), other: (8,)}, {"rank:0": {KEY: WHOLE}, "rank:1": {other: WHOLE}})
    plan = copy_plan(held, on_ranks([2], NEXT), terms=terms)
    office = PostOffice(3)
    found = at_once(office, lambda exchange: copy_of(exchange, plan, LocalState(())).run())
    for rank, weight in enumerate((0.25, 0.75)):
        assert isinstance(found[rank], InternalError)
        assert f"found WeightedSum(weight={weight}) of " in str(found[rank])
        assert f"{NEXT} of rank:2" in str(found[rank])
    assert isinstance(found[2], InternalError)
    assert not office.left


class Silent:
    """Rank 1 of a group whose messages never come, or fail."""

    rank, device = 1, torch.device("cpu")

    def __init__(self, error: str = "") -> None:
        self._error = error

    def receive(self, buffer: torch.Tensor, source: int, tag: int) -> Silent:
        return self

    def done(self) -> bool:
        return bool(self._error)

    def done_within(self, timeout_s: float) -> bool:
        return self.done()

    def error(self) -> str:
        return self._error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("", "receiving the state from rank 0 was not done after 0.05 s in a test: a rank has not joined"),
        ("connection closed", "receiving the state from rank 0 failed in a test: connection closed"),
    ],
)
def test_who_was_missing_is_named(error: str, said: str) -> None:
    began: list[bool] = []
    copy = copy_of(Silent(error), copy_plan(on_ranks([0]), on_ranks([1])), eight(), wait=waiter(0.05))
    with pytest.raises(CollectiveError, match=said):
        copy.run(writing=lambda: began.append(True))
    assert not began, "nothing has changed"


def test_it_can_be_interrupted_before_anything_has_changed() -> None:
    began: list[bool] = []
    interrupted = waiter(aborted=lambda: True)
    copy = copy_of(Silent(), copy_plan(on_ranks([0]), on_ranks([1])), eight(), wait=interrupted)
    with pytest.raises(Interrupted):
        copy.run(writing=lambda: began.append(True))
    assert not began
