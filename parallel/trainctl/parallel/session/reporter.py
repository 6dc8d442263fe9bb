"""Figures of committed steps on their way to the controller, and to the hooks of the one worker that reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.places import records_uri
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.bridge import Checkpointed, Figures, Noticed
from trainctl.parallel.results.delivered import START
from trainctl.parallel.results.hook import Recovery, Run, RunEnd
from trainctl.parallel.results.hooks import Hooks
from trainctl.parallel.results.sources import HookSource, hooks_of
from trainctl.parallel.session.seat import Seat
from trainctl.parallel.session.worker_context import WorkerContext

RECENT_FIGURES = 256
"""Figures that every rank keeps: more than an agent holds back between two heartbeats, even of very short steps."""


class Reporter:
    """What one worker knows of the newest steps, and whom it tells.

    Args:
        context: of the worker.
        steps: number of the last step.
        hooks: further ones than the job file asks for.

    Raises:
        SpecError: a hook of the job file cannot be used.

    Attributes:
        checkpoint: the newest that this worker completed, and said so.
    """

    def __init__(self, context: WorkerContext, *, steps: int, hooks: Sequence[HookSource]) -> None:
        self._context = context
        self._steps = steps
        desired, results = context.desired, context.spec.results
        self._records = records_uri(results, workdir=desired.workdir, job_uid=desired.job_uid)
        self._hooks = Hooks((*hooks_of(results, records=self._records), *hooks), self._notice)
        self._recent: deque[StepFigures] = deque(maxlen=RECENT_FIGURES)
        self._due: list[StepFigures] = []
        self._reporter = 0
        self._told = START
        self.checkpoint: CheckpointRef | None = None

    def note_commit(self, figures: StepFigures) -> None:
        """A step was applied; its figures go out with the next ``send``."""
        self._due.append(figures)
        self._recent.append(figures)

    def note_evaluation(self, step: int, loss: float) -> None:
        """The state after ``step`` was evaluated."""
        if self._recent and self._recent[-1].step == step:
            self._recent[-1] = replace(self._recent[-1], eval_loss=loss)
            if self._due:
                self._due[-1] = self._recent[-1]

    def hand_over(self, record: GenerationRecord) -> None:
        """Before the generation is entered: its rank 0 is another worker, whose hooks go on where these end."""
        if record.members[0].incarnation != self._context.desired.incarnation:
            self._hooks.close(RunEnd(step=record.target_step, reason="moved"))

    def recent(self, record: GenerationRecord) -> list[dict[str, Any]]:
        """What those who join are told with the state: one of them may be the next to say what another one did not."""
        return [to_wire(figures) for figures in self._known(record)]

    def note_entry(self, seat: Seat) -> None:
        """A generation was entered."""
        record = seat.record
        if seat.membership.figures:
            self._recent.clear()
            self._recent.extend(from_wire(StepFigures, figures) for figures in seat.membership.figures)
        alive = {m.incarnation for m in record.members if m.global_rank in record.holders}
        if record.holders and self._reporter not in alive:
            self._report_for_the_lost(record)
        self._reporter = record.members[0].incarnation
        if seat.group.rank == 0:
            self._enter_hooks(record)

    def send(self, seat: Seat) -> None:
        """Tells the controller and the hooks what they do not know yet; waits for nobody.

        Rank 0 reports, also of the steps that it was told of with the state: when it is lost in its turn, everybody
        knows it, and those go out once more.
        """
        due, self._due = self._due, []
        if due and seat.group.rank == 0:
            self._context.control.send(Figures(tuple(due)))
        if self._hooks.running:
            for figures in self._recent:
                position = (figures.lineage, figures.step)
                if position > self._told and figures.lineage == seat.record.lineage:
                    self._hooks.put(figures)
                    self._told = position

    def settle(self) -> None:
        """Before a checkpoint: the records hold every step up to it, so that none is missing after going back to it."""
        self._hooks.settle()

    def note_checkpoint(self, report: CheckpointReport) -> None:
        """A checkpoint is complete, or failed; only one worker says so."""
        self.checkpoint = report.ref or self.checkpoint
        self._context.control.send(Checkpointed(report))
        self._hooks.put(report)

    def close(self, step: int) -> None:
        """This worker's part is over: its hooks get a few seconds to finish."""
        ended = "stopped" if self._context.instructions.stopping else "failed"
        reason = "finished" if step >= self._steps else ended
        self._hooks.close(RunEnd(step=max(step, 0), reason=reason))

    def _notice(self, hook: str, sentence: str) -> None:
        self._context.control.send(Noticed(f"hook {hook} {sentence}"))

    def _known(self, record: GenerationRecord) -> list[StepFigures]:
        return [f for f in self._recent if f.lineage == record.lineage and f.step <= record.target_step]

    def _report_for_the_lost(self, record: GenerationRecord) -> None:
        """With the worker that reported, and perhaps its agent, figures got lost: all of them go out again."""
        self._due = self._known(record)

    def _enter_hooks(self, record: GenerationRecord) -> None:
        if not self._hooks.running:
            self._told = START
            desired = self._context.desired
            self._hooks.start(
                Run(
                    job_uid=desired.job_uid,
                    job_name=desired.job_name,
                    spec=self._context.spec,
                    steps=self._steps,
                    step=0,
                    lineage=record.lineage,
                    generation=record.generation,
                    records=self._records,
                )
            )
        if record.predecessor:
            self._hooks.put(
                Recovery(
                    generation=record.generation,
                    lineage=record.lineage,
                    step=record.target_step,
                    rung=record.rung,
                    reason=record.reason,
                    workers=record.world_size,
                )
            )
