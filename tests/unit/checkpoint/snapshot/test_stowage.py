"""Where a state goes in host memory is found out once, and again whenever that is not where it goes any more.

Without it each snapshot would look for memory anew, or write over what is still read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.save.saving import Portion, assign
from trainctl.checkpoint.snapshot.host_pool import HostBuffer, plain_memory
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import Stower, stow
from unit.checkpoint.ranks import at_step, full_values, plain, rank_state, rows, same_bits

Values = Mapping[StateKey, torch.Tensor]
Cut = Callable[[Values], Layout]


def rank_0(values: Values, layout: Layout) -> tuple[LocalState, Portion]:
    return rank_state(values, layout, rank_holder(0)), assign(layout)[rank_holder(0)]


def saved(stower: Stower, state: LocalState, assigned: Portion) -> Values:
    """What is copied of a state, by key; each of these has one entry."""
    stowage = stower.of(state, assigned)
    snapshot = Snapshot(state, stowage, HostBuffer(plain_memory(stowage.size_bytes)))
    snapshot.copy()
    assert snapshot.fence(0.0)
    assert len(snapshot.data) == len(state.tensors)
    return {entry.key: copy.clone() for entry, copy in snapshot.data.items()}


def holds(found: Values, state: LocalState) -> bool:
    return all(same_bits(found[held.key], held.tensor.reshape(-1)) for held in state.tensors)


def test_a_later_step_and_other_tensors_that_lie_alike_are_stowed_as_before() -> None:
    stower = Stower()
    first = rank_0(full_values(seed=1), plain(full_values(seed=1), 1))
    assert holds(saved(stower, *first), first[0])
    stowage = stower.of(*first)
    later = at_step(full_values(seed=2), 7)
    state, assigned = rank_0(later, plain(later, 1))
    assert stower.of(state, assigned) is stowage
    found = saved(stower, state, assigned)
    assert {key.version for key in found} == {StateVersion(1, 7)}
    assert holds(found, state)


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        (full_values(), lambda values: rows(values, 2)),
        (full_values(), lambda values: rows(values, 2, dim=1)),
        (full_values(), lambda values: plain(values, 2)),
        (full_values(dtype="F64"), lambda values: plain(values, 1)),
        (full_values({"w": (5, 7), "b": (5,)}), lambda values: plain(values, 1)),
        (full_values({"other": (7, 5), "b": (5,)}), lambda values: plain(values, 1)),
    ],
    ids=["rows", "columns", "half-of-a-replica", "dtype", "shape", "name"],
)
def test_whatever_lies_otherwise_is_looked_at_anew(values: Values, cut: Cut) -> None:
    stower = Stower()
    before = rank_0(full_values(), plain(full_values(), 1))
    stowage = stower.of(*before)
    state, assigned = rank_0(values, cut(values))
    assert stower.of(state, assigned) is not stowage
    assert stower.of(state, assigned) == stow(state, assigned)


def test_a_tensor_that_is_not_contiguous_now_is_copied_in_its_order() -> None:
    stower = Stower()
    values = {key: value for key, value in full_values().items() if value.dim() == 2 and value.numel()}
    state, assigned = rank_0(values, plain(values, 1))
    stowage = stower.of(state, assigned)
    ((key, value),) = values.items()
    turned = rank_state({key: value}, plain(values, 1), rank_holder(0))
    turned.tensors[0].tensor.data = value.t().contiguous().t()
    assert not turned.tensors[0].tensor.is_contiguous()
    assert stower.of(turned, assigned) is stowage
    assert same_bits(saved(stower, turned, assigned)[key], value.reshape(-1))
