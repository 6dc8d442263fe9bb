"""What is due between two steps: evaluation, figures, a checkpoint, and to end in good order.

All ranks stand at the same step and come to the same decisions. After an interruption the duties of the step are done
again, unless the new record or a member knows them as done.
"""

from __future__ import annotations

import math

from trainctl.core.records.step import Phase
from trainctl.parallel.bridge import Finished
from trainctl.parallel.plan.vote import Agreement, VoteFlag
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.evaluation import EvaluationPlan
from trainctl.parallel.session.old_checkpoints import OldCheckpoints
from trainctl.parallel.session.reporter import Reporter
from trainctl.parallel.session.save_clock import SaveClocks
from trainctl.parallel.session.seat import Seat
from trainctl.parallel.session.worker_context import WorkerContext

SEALED_S = 3.0
"""How long a worker that ends waits for a checkpoint that it is sealing: what is older than that one is to go, too."""
_LINGER_S = 5.0
"""How long a finished worker stays to be told to stop, or to help out when another one did not get as far."""


class Duties:
    """Remembers what was done, and does the rest.

    Attributes:
        evaluated_step: newest step that this worker knows to be evaluated.
    """

    def __init__(
        self,
        context: WorkerContext,
        replica: Replica,
        *,
        steps: int,
        evaluation: EvaluationPlan | None,
        checkpoints: Checkpoints,
        reporter: Reporter,
        clocks: SaveClocks,
        old: OldCheckpoints,
    ) -> None:
        self._context = context
        self._replica = replica
        self._steps = steps
        self._evaluation = evaluation
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._clocks = clocks
        self._old = old
        self.evaluated_step = -1
        self._done_step = -1

    def note_entry(self, seat: Seat) -> None:
        """A generation was entered: what is known as done at its target step."""
        record, done = seat.record, seat.membership
        self.evaluated_step = record.target_step if done.evaluated else -1
        self._done_step = -1
        self._reporter.note_entry(seat)
        self._clocks.enter(record.target_step, seat.saves.saved_step)
        self._old.look(self._context.instructions.latest)

    def carry_out(self, seat: Seat, agreed: Agreement) -> bool:
        """Does what is due at this boundary, once in a generation; True if the run is over for this worker.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        step = self._replica.applied_step
        if step == self._done_step:  # a loop asks at the end of a step, and again where it begins the next
            return False
        seat.saves.advance(agreed.saved)
        if seat.snapshots is not None:
            seat.snapshots.advance(agreed.snapshots)
        self._evaluate(seat, step)
        self._reporter.send(seat)
        self._snapshot(seat, step, agreed)
        self._save(seat, step, agreed)
        if step >= self._steps:
            self._finish(seat, step)
            return True
        if VoteFlag.STOP in agreed.flags:
            self._settle(seat)
            return True
        if VoteFlag.HOLD in agreed.flags:
            return self._hold(seat)
        self._done_step = step
        return False

    def _evaluate(self, seat: Seat, step: int) -> None:
        if self._evaluation is None or not self._evaluation.due(step) or self.evaluated_step == step:
            return
        self._context.where.show(Phase.EVAL)
        loss = self._evaluation.run(seat.group, self._context.waiter, lockstep=self._replica.holding.lockstep)
        self.evaluated_step = step
        self._reporter.note_evaluation(step, loss)

    def _save(self, seat: Seat, step: int, agreed: Agreement) -> None:
        """Begins what is due; before the run ends or stands still, everything that was begun is brought to its end."""
        saves, flags = seat.saves, agreed.flags
        # Where no rank has what another has, a change of the ranks goes back to the newest checkpoint: it is made now.
        asked = VoteFlag.SAVE_ON_STOP in flags or (VoteFlag.HOLD in flags and not self._replica.holding.alike)
        last = asked or VoteFlag.HOLD in flags or step >= self._steps
        due = self._checkpoints.due(step, steps=self._steps, saved_step=saves.saved_step, by_time=agreed.save_due)
        due = due or (asked and step != saves.saved_step)
        if not (due or last) or not self._checkpoints.uri:
            return
        self._context.where.show(Phase.CHECKPOINT)
        if due:
            self._clocks.checkpoints.begun(step)
            saves.begin(in_place=last or VoteFlag.SAVE_IN_PLACE in flags)
        if last:
            saves.finish()

    def _snapshot(self, seat: Seat, step: int, agreed: Agreement) -> None:
        """Begins one that is due, unless the one before is still on its way: the next boundary will do as well."""
        snapshots = seat.snapshots
        if snapshots is None or step >= self._steps or not snapshots.ready:
            return
        if self._checkpoints.snapshot_due(step, snapshots.saved_step, by_time=agreed.snapshot_due):
            self._context.where.show(Phase.CHECKPOINT)
            self._clocks.snapshots.begun(step)
            snapshots.begin(in_place=False)

    def _hold(self, seat: Seat) -> bool:
        """Waits with all the others at this boundary, so that no step is open when the members change.

        A hold never ends in the generation that it began in: who is let go first would begin a step without the rest.

        Returns:
            True when told to stop.

        Raises:
            Interrupted: a newer generation calls.
        """
        seat.report_recovery()
        self._context.where.show(Phase.HELD)
        self._context.instructions.wait_for_end(math.inf)
        self._context.waiter.check()
        self._settle(seat)
        return True

    def _settle(self, seat: Seat) -> None:
        """What the last checkpoint has made superfluous goes before the worker does."""
        if seat.group.rank == 0:
            self._context.instructions.wait_until(lambda: not seat.saves.sealing, SEALED_S)
            self._old.settle(self._reporter.checkpoint)
            self._context.waiter.check()

    def _finish(self, seat: Seat, step: int) -> None:
        """Stays for a moment: if another worker was lost in the last step, this one is still needed."""
        seat.report_recovery()
        self._settle(seat)
        if seat.snapshots is not None:
            seat.snapshots.clear()
        self._context.where.show(Phase.FINISHED)
        self._context.control.send(Finished(step))
        self._context.instructions.wait_for_end(_LINGER_S)
        self._context.waiter.check()
