"""What of a group's state each rank holds, and all that follows from it: two ways, each said in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.live.dtensor import settle_shards
from trainctl.checkpoint.live.state import LocalState
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.replica.gathered_layout import gathered_layout
from trainctl.parallel.replica.gradients import FlatGradients, Gradients
from trainctl.parallel.replica.sharded_gradients import ShardedGradients, sum_instead_of_mean


class Holding(Protocol):
    """How a group holds its state.

    Attributes:
        alike: every rank has what any other has: they compare it, and give it to each other. Else a change of the
            ranks goes back to a checkpoint or a snapshot.
        lockstep: the ranks go through the model together: each as often as all others, with data or without.
        rebuilt: in every generation the model is made again, and with it the initial state.
        counts_writes: who writes to a tensor of the model outside of a step can be found by its count of writes.
    """

    alike: bool
    lockstep: bool
    rebuilt: bool
    counts_writes: bool

    def layout(self, group: Group, state: LocalState, *, waiter: Waiter) -> Layout:
        """Who holds what of the state of all ranks; all of them ask together.

        Raises:
            PlanError: the ranks built different models.
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        ...

    def gradients(self, groups: Sequence[Mapping[str, Any]]) -> Gradients:
        """Those of parameter groups.

        Raises:
            PlanError: a parameter is not held so.
        """
        ...

    def adopt(self, model: nn.Module) -> None:
        """Prepares a model that was just built."""
        ...

    def settle(self, model: nn.Module) -> None:
        """Brings back to their place the parameters that a pass has left elsewhere."""
        ...


class Whole:
    """Every rank holds everything: plain data parallelism."""

    alike = True
    lockstep = False
    rebuilt = False
    counts_writes = True

    def layout(self, group: Group, state: LocalState, *, waiter: Waiter) -> Layout:
        """Nobody is asked."""
        del waiter
        return replicated(state.shapes(), [rank_holder(rank) for rank in range(group.size)])

    def gradients(self, groups: Sequence[Mapping[str, Any]]) -> Gradients:
        """In flat memory of our own, summed by the session."""
        return FlatGradients(groups)

    def adopt(self, model: nn.Module) -> None:
        """As it is."""

    def settle(self, model: nn.Module) -> None:
        """They stay in their place."""


class Sharded:
    """Each rank holds another part, and the model itself gathers parameters and reduces gradients, as FSDP2 does."""

    alike = False
    lockstep = True
    rebuilt = True
    counts_writes = False  # the model writes its tensors anew in every pass

    def layout(self, group: Group, state: LocalState, *, waiter: Waiter) -> Layout:
        """Each says what it has."""
        return gathered_layout(group, state, waiter=waiter)

    def gradients(self, groups: Sequence[Mapping[str, Any]]) -> Gradients:
        """Those of the own shards."""
        return ShardedGradients(groups)

    def adopt(self, model: nn.Module) -> None:
        """Its gradients are to be sums."""
        sum_instead_of_mean(model)

    def settle(self, model: nn.Module) -> None:
        """Full parameters become shards again."""
        settle_shards(model)
