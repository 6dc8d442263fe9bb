"""The saves of a rank are planned once, and anew when anything of the layout has changed, on any rank.

Without it each save would plan anew, or use a plan that does not fit any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Flat, Region
from trainctl.checkpoint.library import Checkpointer, load_state
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.save.dealing import Dealer
from trainctl.checkpoint.save.saving import Portion, assign
from trainctl.core.errors import PlanError
from unit.checkpoint.layouts import key

Held = dict[str, dict[StateKey, tuple[Region, ...]]]
SIZES = {"a": 100, "b": 60, "c": 60}
CUTS = {"a": (0, 40, 70, 100), "b": (0, 20, 20, 60), "c": (0, 20, 20, 60)}


def at_step(step: int) -> Callable[[str], StateKey]:
    return lambda name: key(name)._replace(version=StateVersion(1, step))


def cut(step: int, cuts: Mapping[str, tuple[int, ...]] = CUTS, ranks: int = 3) -> Layout:
    named = at_step(step)
    held: Held = {
        rank_holder(rank): {named(name): (Flat(cuts[name][rank], cuts[name][rank + 1]),) for name in cuts}
        for rank in range(ranks)
    }
    return Layout({named(name): (SIZES[name],) for name in cuts}, held)


def test_a_second_save_of_the_same_layout_plans_nothing() -> None:
    dealers = [Dealer(rank_holder(rank)) for rank in range(3)]
    for step in (1, 2, 3):
        found = [dealer.portion(cut(step)) for dealer in dealers]
        assert found == [assign(cut(step))[rank_holder(rank)] for rank in range(3)], "under the names of this step"
    assert [dealer.planned for dealer in dealers] == [1, 1, 1]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("at", [1, 2])
def test_another_region_on_any_one_pair_of_ranks_is_planned_anew_by_all(name: str, at: int) -> None:
    """Names, shapes and the own region may all be the same: what others hold counts, too."""
    moved = [*CUTS[name]]
    moved[at] += 1 if at == 2 else -1
    other = {**CUTS, name: tuple(moved)}
    for rank in range(3):
        dealer = Dealer(rank_holder(rank))
        dealer.portion(cut(1))
        assert dealer.portion(cut(2, other)) == assign(cut(2, other))[rank_holder(rank)]
        assert dealer.planned == 2
        assert dealer.portion(cut(3)) == assign(cut(3))[rank_holder(rank)]
        assert dealer.planned == 3, "the newest is kept, and no other"


def grown_replica(step: int) -> Layout:
    """One rank holds more than it has to: only the last field of one rank of one tensor differs."""
    named = at_step(step)
    held: Held = {holder: dict(keys) for holder, keys in cut(step).holders.items()}
    held[rank_holder(2)][named("a")] = (Flat(0, 100),)
    return Layout(cut(step).shapes, held)


def renamed(step: int) -> Layout:
    return swapped_field(step, lambda found: found._replace(fqn="d") if found.fqn == "c" else found)


def other_dtype(step: int) -> Layout:
    return swapped_field(step, lambda found: found._replace(dtype="BF16") if found.fqn == "c" else found)


def other_instance(step: int) -> Layout:
    return swapped_field(step, lambda found: found._replace(instance="island-1") if found.fqn == "c" else found)


def swapped_field(step: int, change: Callable[[StateKey], StateKey]) -> Layout:
    layout = cut(step)
    held = {holder: {change(k): regions for k, regions in keys.items()} for holder, keys in layout.holders.items()}
    return Layout({change(k): shape for k, shape in layout.shapes.items()}, held)


def fewer_tensors(step: int) -> Layout:
    return cut(step, {name: CUTS[name] for name in "ab"})


def one_more_rank(step: int) -> Layout:
    return cut(step, {name: (*cuts, cuts[-1]) for name, cuts in CUTS.items()}, ranks=4)


CHANGES = [grown_replica, renamed, other_dtype, other_instance, fewer_tensors, one_more_rank]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_else_changes_is_planned_anew(change: Callable[[int], Layout]) -> None:
    dealer = Dealer(rank_holder(0))
    dealer.portion(cut(1))
    assert dealer.portion(change(2)) == assign(change(2))[rank_holder(0)]
    assert dealer.planned == 2


@given(st.lists(st.sampled_from([cut, *CHANGES]), min_size=1, max_size=6))
def test_what_is_kept_is_never_another_than_what_would_be_planned(layouts: list[Callable[[int], Layout]]) -> None:
    dealer = Dealer(rank_holder(1))
    for step, made in enumerate(layouts):
        assert dealer.portion(made(step)) == assign(made(step))[rank_holder(1)]


def test_a_layout_with_a_gap_is_refused_each_time() -> None:
    dealer = Dealer(rank_holder(0))
    gap = {**CUTS, "b": (1, 20, 20, 60)}
    for step in (1, 2):
        with pytest.raises(PlanError, match="expected every part of the state on some rank"):
            dealer.portion(cut(step, gap))
    assert dealer.portion(cut(3)) == assign(cut(3))[rank_holder(0)]


def test_values_are_those_of_the_save_that_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a save is its layout: the third one neither holds the values of the first, nor its memory."""
    planned: list[Layout] = []
    monkeypatch.setattr("trainctl.checkpoint.save.dealing.assign", lambda layout: noted(planned, layout))
    with Checkpointer(str(tmp_path)) as checkpointer:
        for step, size in enumerate((20, 20, 20, 8), start=1):
            state = flat(torch.full((size,), float(step)))
            checkpointer.async_save_state(state, step=step).result()
            into = torch.zeros(size)
            assert load_state(str(tmp_path), flat(into)).step == step
            assert torch.equal(into, torch.full((size,), float(step)))
    assert len(planned) == 2, "for the first, and for the one of another shape"


def noted(planned: list[Layout], layout: Layout) -> dict[str, Portion]:
    planned.append(layout)
    return dict(assign(layout))


def flat(values: torch.Tensor) -> LocalState:
    named = StateKey("w", "exp_avg", "F32", "island-0", StateVersion(0, 0))
    return LocalState((StateTensor(named, (len(values),), Flat(0, len(values)), values),))
