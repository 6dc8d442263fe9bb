"""What a loop does inside ``with session.step() as step``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate  # pyright: ignore[reportUnknownVariableType]  (a list of what?)

from trainctl.core.errors import PreconditionError
from trainctl.parallel.plan.digest import sample_digest
from trainctl.parallel.plan.micro_batches import MicroBatch
from trainctl.parallel.replica.generators import seed_generators


class StepContext:
    """This rank's share of one step.

    Where the model itself communicates, all ranks have to run it equally often: ranks with fewer micro-batches run it
    on ``idle`` ones, too, which count for nothing.

    Attributes:
        step: 1-based number of the step.
        tokens: targets that went through ``backward``.
        while_waiting: to be called in turn, with the seconds so far, by what makes the loop wait for a batch: a look at
            the abort flag and, for a while, a sign of life.
    """

    def __init__(
        self,
        step: int,
        own: tuple[MicroBatch, ...],
        *,
        before_each: Callable[[], None],
        idle: tuple[MicroBatch, ...] = (),
        ahead: Iterable[MicroBatch] = (),
        while_waiting: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.step = step
        self.tokens = 0
        self._own = own
        self._turns = (*own, *idle)
        self._before_each = before_each
        self._ahead = iter(ahead)
        self._seen_ahead: list[MicroBatch] = []
        self.while_waiting = while_waiting
        self._started = 0
        self._finished = 0
        self._loss_sum: Tensor | None = None

    def micro_batches(self) -> Iterator[MicroBatch]:
        """The micro-batches dealt to this rank, in order; torch's generators are seeded for each."""
        for micro_batch in self._turns[self._started :]:
            self._before_each()
            seed_generators(micro_batch.seed)
            self._started += 1
            yield micro_batch

    def upcoming(self) -> Iterator[MicroBatch]:
        """What this rank computes next, as long as no rank leaves or joins: the rest of this step, then later ones."""
        yield from self._own[self._started :]
        for number in count():
            if number == len(self._seen_ahead):
                self._seen_ahead.extend(islice(self._ahead, 1))
            if number == len(self._seen_ahead):
                return
            yield self._seen_ahead[number]

    def batches(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any] = default_collate) -> Iterator[Any]:
        """As ``micro_batches``, but with the samples of a map-style dataset, collated as a ``DataLoader`` would."""
        for micro_batch in self.micro_batches():
            yield collate([dataset[sample_id] for sample_id in micro_batch.sample_ids])

    def backward(self, loss_sum: Tensor, tokens: int) -> None:
        """Accumulates the gradient of one micro-batch.

        Args:
            loss_sum: loss *summed* over the targets, so that no rank's share has to be weighted.
            tokens: number of targets in it.

        Raises:
            PreconditionError: it was called more often than there were micro-batches, or ``tokens`` is no number of
                targets.
        """
        if not _is_count(tokens):
            raise PreconditionError(
                f"step {self.step}: expected the number of targets, 0 or more, found {tokens!r}",
                hint="step.backward(loss_sum, targets): the loss is divided by their number over the whole batch",
            )
        if self._finished == self._started:
            raise PreconditionError(
                f"step {self.step}: backward was called {self._finished + 1} times for {self._started} micro-batches",
                hint="call it once inside `for micro_batch in step.micro_batches()`",
            )
        if self._finished >= len(self._own):
            (loss_sum * 0.0).backward()  # type: ignore[no-untyped-call]
            self._finished += 1
            return
        loss_sum.backward()  # type: ignore[no-untyped-call]
        detached = loss_sum.detach().double()
        self._loss_sum = detached if self._loss_sum is None else self._loss_sum + detached
        self.tokens += tokens
        self._finished += 1

    @property
    def complete(self) -> bool:
        """Whether every micro-batch dealt to this rank went through ``backward``."""
        return self._finished == len(self._turns)

    @property
    def loss_sum(self) -> float:
        """Summed loss of this rank's micro-batches so far."""
        return 0.0 if self._loss_sum is None else float(self._loss_sum)

    @property
    def digest(self) -> int:
        """Digest of the samples that went through ``backward``."""
        return sample_digest(i for micro_batch in self._own[: self._finished] for i in micro_batch.sample_ids)


def _is_count(value: object) -> bool:
    """Whoever calls ``backward`` may never have looked at types."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
