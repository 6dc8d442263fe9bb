"""The step protocol (design section 5): compute, reduce, fence, vote, apply. Nothing else happens in a step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from trainctl.core.records.step import Outcome, Phase, StepFigures
from trainctl.parallel.bridge import Noticed
from trainctl.parallel.plan.micro_batches import MicroBatch, deal
from trainctl.parallel.plan.vote import Agreement, Ballot, Saved, VoteFlag, VoteRecord, agree, fold
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.figures import StepClock
from trainctl.parallel.session.save_clock import SaveClocks
from trainctl.parallel.session.seat import Seat
from trainctl.parallel.session.step_context import StepContext
from trainctl.parallel.session.work_plan import WorkPlan
from trainctl.parallel.session.worker_context import WorkerContext

_LOG = logging.getLogger("trainctl.session")
_TOLD_SKIPS = frozenset(10**power for power in range(9))
"""The first step of this worker that is skipped is an event of the job; then fewer and fewer are."""


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that has begun: the loop's side of it, and what is voted on at its end."""

    context: StepContext
    ballot: Ballot


class StepProtocol:
    """Takes one worker through steps.

    Attributes:
        agreed: what all ranks know of each other since the last vote.
        clock: times of the current step.
    """

    def __init__(self, context: WorkerContext, replica: Replica, plan: WorkPlan, clocks: SaveClocks) -> None:
        self._context = context
        self._where = context.where
        self._replica = replica
        self._plan = plan
        self._save_clocks = clocks
        self.agreed = Agreement()
        self.clock = StepClock()
        self._skipped = 0

    @property
    def micro_batches(self) -> int:
        """Of one step."""
        return self._plan.batch.micro_batches

    def open(self, seat: Seat) -> OpenStep:
        """Begins the step after the one applied: gradients are zero, the micro-batches are dealt."""
        replica = self._replica
        step = replica.applied_step + 1
        self._where.step = step
        self._where.show(Phase.COMPUTE)
        replica.begin_step()
        everything = self._plan.micro_batches(step=step, cursor=replica.cursor)
        parts = deal(len(everything), seat.group.size)
        own = parts[seat.group.rank]
        turns = max(map(len, parts)) if replica.holding.lockstep else len(own)
        context = StepContext(
            step,
            everything[own.start : own.stop],
            before_each=self._before_micro_batch,
            idle=everything[:1] * (turns - len(own)),
            ahead=self._ahead(seat, step, replica.cursor),
            while_waiting=self._while_waiting,
        )
        generation, lineage = seat.record.generation, replica.lineage
        ballot = self._plan.ballot(
            everything,
            generation=generation,
            lineage=lineage,
            step=step,
            cursor=replica.cursor,
            learning_rate=replica.learning_rate,
        )
        return OpenStep(context, ballot)

    def _ahead(self, seat: Seat, step: int, cursor: int) -> Iterator[MicroBatch]:
        """What this rank is dealt in the steps after ``step`` if everybody stays; computed as far as asked for."""
        for later in range(step + 1, self._plan.steps + 1):
            cursor += self._plan.batch.sequences
            everything = self._plan.micro_batches(step=later, cursor=cursor)
            own = deal(len(everything), seat.group.size)[seat.group.rank]
            yield from everything[own.start : own.stop]

    def commit(self, seat: Seat, step: OpenStep) -> StepFigures:
        """Brings the step to its end; on return all ranks have voted on it, and this one has applied it.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``. What was reduced or voted by then is retained.
        """
        self._reduce(seat, step.context.step)
        self._where.show(Phase.FENCE)
        for saves in seat.all_saves:
            saves.pass_fence()
        return self.apply(self._vote(seat, step), seat.record.generation)

    def apply(self, outcome: Outcome, generation: int) -> StepFigures:
        """Commits a step from the retained gradients, as it was voted now, or as the record of ``generation`` fixes it.

        Whoever dies between the two phases shown here counts as lost, in a recovery, too.
        """
        self._where.show(Phase.APPLYING)
        self._replica.apply(outcome, reach=self._where.reach)
        self._where.show(Phase.APPLIED)
        self._where.reach("apply.after")
        if outcome.reason:
            self._note_skip(outcome)
        return self.clock.commit(outcome, generation)

    def _before_micro_batch(self) -> None:
        self._context.waiter.check()
        self._where.reach("step.compute")

    def _while_waiting(self, waited_s: float) -> None:
        """The loop waits for something of its own; beyond the longest wait in a collective that is silence."""
        self._context.waiter.check(alive=waited_s < self._context.waiter.timeout_s)

    def _reduce(self, seat: Seat, step: int) -> None:
        self._where.show(Phase.REDUCE)
        self._where.reach("step.reduce")
        self._replica.gradients.check_bound()
        began_s = time.monotonic()
        seat.reducer.reduce(self._context.waiter)
        self.clock.reduce_s = time.monotonic() - began_s
        self._replica.retain(generation=seat.record.generation, step=step)

    def _vote(self, seat: Seat, step: OpenStep) -> Outcome:
        self._where.show(Phase.VOTE)
        began_s = time.monotonic()
        votes = seat.ballots.collect(self._own_vote(seat, step), self._context.waiter)
        outcome = fold(votes, step.ballot)
        self._replica.voted = outcome
        self.agreed = agree(votes)
        self._where.voted_step = outcome.step
        self.clock.vote_s = time.monotonic() - began_s
        self._where.reach("vote.after")
        return outcome

    def _own_vote(self, seat: Seat, step: OpenStep) -> VoteRecord:
        norms = self._replica.gradients.squared_norms(seat.group.rank, seat.group.size)
        loss_sum = step.context.loss_sum
        flags = VoteFlag.OK if step.context.complete else VoteFlag(0)
        if not all(map(math.isfinite, (loss_sum, *norms))):
            flags |= VoteFlag.NON_FINITE
        instructions = self._context.instructions
        if instructions.stopping:
            flags |= VoteFlag.STOP
            if instructions.latest.checkpoint_on_stop:
                flags |= VoteFlag.SAVE_ON_STOP
        if instructions.holding:
            flags |= VoteFlag.HOLD
            if instructions.latest.checkpoint_on_stop:
                flags |= VoteFlag.SAVE_ON_STOP
        if seat.saves.in_place:
            flags |= VoteFlag.SAVE_IN_PLACE
        flags |= self._save_clocks.flags(instructions.latest)
        return VoteRecord(
            generation=step.ballot.generation,
            lineage=step.ballot.lineage,
            step=step.ballot.step,
            flags=flags,
            tokens=step.context.tokens,
            loss_sum=loss_sum,
            sample_digest=step.context.digest,
            squared_norms=norms,
            saved=seat.saves.saved,
            snapshots=seat.snapshots.saved if seat.snapshots is not None else Saved(),
        )

    def _note_skip(self, outcome: Outcome) -> None:
        self._skipped += 1
        _LOG.warning("%s: the step is skipped: %s", self._where, outcome.reason)
        if self._skipped in _TOLD_SKIPS:
            so_far = f"; it is the {self._skipped}th that is skipped" if self._skipped > 1 else ""
            self._context.control.send(Noticed(f"step {outcome.step} is skipped: {outcome.reason}{so_far}"))
