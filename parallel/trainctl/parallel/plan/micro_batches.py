"""Who computes what: the global batch as logical micro-batches, dealt to however many ranks there are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trainctl.core.errors import PlanError
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.randomness import derive_seed
from trainctl.parallel.plan.sample_order import Order


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One logical micro-batch: the same work on whichever rank, and however often, it is computed.

    Attributes:
        index: 0-based among the micro-batches of the step.
        sample_ids: the samples it consists of.
        seed: of all randomness (dropout) inside it.
    """

    index: int
    sample_ids: tuple[int, ...]
    seed: int


def deal(num_items: int, num_parts: int) -> tuple[range, ...]:
    """Cuts ``range(num_items)`` into ``num_parts`` contiguous ranges whose lengths differ by at most one.

    Pure in its arguments, so all ranks agree without talking; the earlier parts get the longer ranges.

    Raises:
        PlanError: there are no parts.
    """
    if num_parts < 1 or num_items < 0:
        raise PlanError(
            f"expected at least 1 part and no negative count, found {num_items} items for {num_parts} parts"
        )
    size, longer = divmod(num_items, num_parts)
    starts = [part * size + min(part, longer) for part in range(num_parts + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(starts))


def micro_batches_of_step(
    order: Order, batch: BatchSpec, *, step: int, cursor: int, seed: int
) -> tuple[MicroBatch, ...]:
    """All micro-batches of ``step``, a function of the data cursor *before* the step: nothing depends on the ranks."""
    sample_ids = order.ids(cursor, batch.sequences)
    return tuple(
        MicroBatch(index, tuple(sample_ids[i] for i in part), derive_seed(seed, step, index))
        for index, part in enumerate(deal(batch.sequences, batch.micro_batches))
    )
