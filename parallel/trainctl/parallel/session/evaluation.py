"""Held-out evaluation after a step: items dealt to the ranks, sums folded in rank order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.micro_batches import deal


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Given by ``Session.on_evaluate``.

    Attributes:
        every: steps between evaluations; 0 never.
        num_items: how much there is to compute.
        evaluate: item -> (summed loss, targets); it changes no state.
    """

    every: int
    num_items: int
    evaluate: Callable[[int], tuple[Tensor | float, int]]

    def due(self, step: int) -> bool:
        """Whether the state after ``step`` is evaluated."""
        return self.every > 0 and step > 0 and step % self.every == 0

    def run(self, group: Group, waiter: Waiter, *, lockstep: bool = False) -> float:
        """Mean loss in nats per target, the same on every rank.

        Args:
            group: the ranks.
            waiter: for the sums.
            lockstep: the model itself communicates, so all ranks evaluate equally often; the surplus is not counted.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        loss_sum, tokens = 0.0, 0
        parts = deal(self.num_items, group.size)
        own = parts[group.rank]
        for turn in range(len(max(parts, key=len)) if lockstep else len(own)):
            waiter.check()
            item_loss, item_tokens = self.evaluate(own[turn] if turn < len(own) else 0)
            if turn < len(own):
                loss_sum += float(item_loss)
                tokens += item_tokens
        sums = gather_json(group, [loss_sum.hex(), tokens], waiter=waiter, what="the evaluation")
        total_loss = sum(float.fromhex(rank_loss) for rank_loss, _ in sums)
        total_tokens = int(sum(rank_tokens for _, rank_tokens in sums))
        return total_loss / max(total_tokens, 1)
