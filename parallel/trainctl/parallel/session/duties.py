"""What is due between two steps: evaluation, figures, a checkpoint, and to end in good order.

All ranks stand at the same step and come to the same decisions. After an interruption the duties of the step are done
again, unless the new record or a member knows them as done.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.step import Phase, StepFigures
from trainctl.parallel.bridge import Checkpointed, Figures, Finished
from trainctl.parallel.plan.vote import VoteFlag
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.evaluation import EvaluationPlan
from trainctl.parallel.session.figures import StepClock
from trainctl.parallel.session.seat import Seat
from trainctl.parallel.session.worker_context import WorkerContext

RECENT_FIGURES = 256
"""Figures that every rank keeps: more than an agent holds back between two heartbeats, even of very short steps."""
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
        checkpoints: Checkpoints | None,
    ) -> None:
        self._context = context
        self._replica = replica
        self._steps = steps
        self._evaluation = evaluation
        self._checkpoints = checkpoints
        self._figures: StepFigures | None = None
        self._recent: deque[StepFigures] = deque(maxlen=RECENT_FIGURES)
        self._backlog: list[StepFigures] = []
        self._reporter = 0
        self._saved_step = -1
        self.evaluated_step = -1

    def note_commit(self, figures: StepFigures) -> None:
        """A step was applied; its figures go out with the next duties."""
        self._figures = figures
        self._recent.append(figures)

    def note_entry(self, seat: Seat, clock: StepClock) -> None:
        """A generation was entered: what is known as done at its target step."""
        record, done = seat.record, seat.membership
        self._saved_step = max(record.checkpointed_step, record.checkpoint.step if record.checkpoint else -1)
        self.evaluated_step = record.target_step if done.evaluated else -1
        if done.applied_open_step and record.outcome is not None:
            self.note_commit(clock.commit(record.outcome, record.generation))
        alive = {record.members[rank].incarnation for rank in record.holders}
        if record.holders and self._reporter not in alive:
            self._report_for_the_lost(record)
        self._reporter = record.members[0].incarnation

    def _report_for_the_lost(self, record: GenerationRecord) -> None:
        """With the worker that reported, and perhaps its agent, figures got lost: all of them go out again."""
        known = [f for f in self._recent if f.lineage == record.lineage and f.step <= record.target_step]
        if known:
            *self._backlog, self._figures = known

    def carry_out(self, seat: Seat, agreed: VoteFlag) -> bool:
        """Does what is due; True if the run is over for this worker.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        step = self._replica.applied_step
        self._evaluate(seat, step)
        self._send_figures(seat)
        self._save(seat, step, on_stop=VoteFlag.SAVE_ON_STOP in agreed)
        if step >= self._steps:
            self._finish(seat, step)
            return True
        if VoteFlag.STOP in agreed:
            return True
        return VoteFlag.HOLD in agreed and self._hold(seat)

    def _evaluate(self, seat: Seat, step: int) -> None:
        if self._evaluation is None or not self._evaluation.due(step) or self.evaluated_step == step:
            return
        self._context.where.show(Phase.EVAL)
        loss = self._evaluation.run(seat.group, self._context.waiter, lockstep=self._replica.sharded)
        self.evaluated_step = step
        if self._figures is not None:
            self._figures = self._recent[-1] = replace(self._figures, eval_loss=loss)

    def _send_figures(self, seat: Seat) -> None:
        """Rank 0 reports; where it is new and cannot know the steps up to the target, the first holder does."""
        due = [*self._backlog, *([self._figures] if self._figures is not None else [])]
        self._backlog, self._figures = [], None
        if not due:
            return
        record = seat.record
        known_to_holders = record.holders and due[-1].step <= record.target_step
        if seat.group.rank == (min(record.holders) if known_to_holders else 0):
            self._context.control.send(Figures(tuple(due)))

    def _save(self, seat: Seat, step: int, *, on_stop: bool) -> None:
        checkpoints = self._checkpoints
        if checkpoints is None or step == self._saved_step or not (on_stop or checkpoints.due(step, self._steps)):
            return
        self._context.where.show(Phase.CHECKPOINT)
        checkpoints.save(
            self._replica,
            seat.record,
            seat.group,
            waiter=self._context.waiter,
            report=lambda report: self._context.control.send(Checkpointed(report)),
        )
        self._saved_step = step

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
        return True

    def _finish(self, seat: Seat, step: int) -> None:
        """Stays for a moment: if another worker was lost in the last step, this one is still needed."""
        seat.report_recovery()
        self._context.where.show(Phase.FINISHED)
        self._context.control.send(Finished(step))
        self._context.instructions.wait_for_end(_LINGER_S)
        self._context.waiter.check()
