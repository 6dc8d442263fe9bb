"""What is to be trained on: the steps of a run as a function of the position in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.digest import sample_digest
from trainctl.parallel.plan.micro_batches import MicroBatch, micro_batches_of_step
from trainctl.parallel.plan.sample_order import Order
from trainctl.parallel.plan.vote import Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPlan:
    """Given once by ``Session.set_data``; the same on all ranks.

    Attributes:
        order: of the samples.
        steps: optimizer steps of the run.
        batch: sequences and micro-batches of a step.
        seed: of the run.
        schedule: learning rate by step; None leaves it to the loop's own schedulers.
        clip_norm: bound of the mean gradient's norm; 0 does not clip.
    """

    order: Order
    steps: int
    batch: BatchSpec
    seed: int
    schedule: Callable[[int], float] | None
    clip_norm: float

    def micro_batches(self, *, step: int, cursor: int) -> tuple[MicroBatch, ...]:
        """All micro-batches of ``step``, which begins at ``cursor``."""
        return micro_batches_of_step(self.order, self.batch, step=step, cursor=cursor, seed=self.seed)

    def ballot(
        self,
        micro_batches: tuple[MicroBatch, ...],
        *,
        generation: int,
        lineage: int,
        step: int,
        cursor: int,
        learning_rate: float,
    ) -> Ballot:
        """What is known of the step before the vote; without a schedule, ``learning_rate`` is the optimizer's."""
        return Ballot(
            generation=generation,
            lineage=lineage,
            step=step,
            learning_rate=learning_rate if self.schedule is None else self.schedule(step),
            clip_norm=self.clip_norm,
            cursor=cursor + self.batch.sequences,
            sample_digest=sample_digest(i for micro_batch in micro_batches for i in micro_batch.sample_ids),
        )
