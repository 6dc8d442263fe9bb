"""``Session``: a training loop that outlives its workers. This file is the step protocol (design section 5)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.core.codec import from_wire
from trainctl.core.errors import CollectiveError, PreconditionError
from trainctl.core.records.spec import BatchSpec, JobSpec, TrainJob
from trainctl.core.records.step import Outcome, Phase, StepFigures
from trainctl.core.records.worker import RecoveryReport, WorkerDesired
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.bridge import Checkpointed, Figures, Finished, Ready, Recovered, Running
from trainctl.parallel.collectives.choice import collectives_for
from trainctl.parallel.collectives.port import Collectives
from trainctl.parallel.collectives.wait import Interrupted, Waiter
from trainctl.parallel.plan.micro_batches import deal
from trainctl.parallel.plan.sample_order import SampleOrder
from trainctl.parallel.plan.vote import Ballot, VoteFlag, VoteRecord, fold, fold_flags
from trainctl.parallel.recovery.enter import Entry
from trainctl.parallel.recovery.membership import Membership, rank_of
from trainctl.parallel.replica.reducer import GradientReducer
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.ballot_box import BallotBox
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.control import Control, NoControl, NoPage, ProgressPage
from trainctl.parallel.session.evaluation import EvaluationPlan
from trainctl.parallel.session.fence import SnapshotFence
from trainctl.parallel.session.figures import StepClock
from trainctl.parallel.session.instructions import Instructions
from trainctl.parallel.session.limits import collective_timeout_s
from trainctl.parallel.session.step_context import StepContext
from trainctl.parallel.session.whereabouts import Whereabouts
from trainctl.parallel.session.work_plan import WorkPlan

_LOG = logging.getLogger("trainctl.session")
_FENCE_S = 5.0
_LINGER_S = 5.0
"""How long a finished worker stays to be told to stop, or to help out when another one did not get as far."""


class _Seat:
    """What a member of a generation works with; thrown away as a whole when the generation is left."""

    def __init__(self, membership: Membership, replica: Replica, where: Whereabouts) -> None:
        self.membership = membership
        self.record = membership.record
        self.group = membership.group
        self.reducer = GradientReducer(replica.gradients, membership.group)
        self.ballots = BallotBox(membership.group, num_groups=replica.gradients.num_groups, reach=where.reach)
        self.entered_s = time.monotonic()
        self.reported = False


class Session:
    """One worker's part in a run.

    ::

        session = Session.open()
        session.register(model=model, optimizer=optimizer)
        session.set_data(...)
        while not session.done:
            with session.step() as step:
                for micro_batch in step.micro_batches():
                    step.backward(loss_sum, tokens)

    Everything else happens inside ``step()``: reduction, vote, optimizer, evaluation, checkpoints, and what it takes to
    go on after a worker was lost. A step that was interrupted is done again in the next turn of the loop.
    """

    def __init__(self, control: Control, page: ProgressPage, *, collectives: Collectives | None = None) -> None:
        self._control = control
        self._page = page
        self._instructions = Instructions(control, touch=page.touch)
        desired = self._instructions.latest
        spec = _job_spec(desired)
        self._desired = desired
        self._faults = FaultPlan()
        self._where = Whereabouts(desired, page, self._faults)
        self._waiter = Waiter(
            aborted=self._instructions.aborted,
            touch=page.touch,
            where=lambda: str(self._where),
            timeout_s=collective_timeout_s(spec.recovery.profile),
        )
        uri = spec.checkpoint.uri or (f"{desired.workdir}/checkpoints" if desired.workdir else "")
        self._checkpoints = Checkpoints(spec=spec.checkpoint, uri=uri, faults=self._faults) if uri else None
        self._collectives = collectives
        self._fence = SnapshotFence()
        self._clock = StepClock()
        self._replica: Replica | None = None
        self._plan: WorkPlan | None = None
        self._evaluation: EvaluationPlan | None = None
        self._seat: _Seat | None = None
        self._figures: StepFigures | None = None
        self._last_figures: StepFigures | None = None
        self._evaluated_step = -1
        self._saved_step = -1
        self._agreed = VoteFlag(0)
        self._over = False

    @classmethod
    def open(cls, *, control: Control | None = None, page: ProgressPage | None = None) -> Session:
        """A session under the agent that ``control`` leads to, or of this process alone."""
        if control is None:
            _LOG.warning("no agent: one process, no recovery, no checkpoints and no figures; use `trainctl submit`")
        return cls(control or NoControl(), page or NoPage())

    @property
    def done(self) -> bool:
        """Whether the loop shall end: the last step is applied and saved, or the worker was told to stop."""
        return self._over

    @property
    def applied_step(self) -> int:
        """Last step applied; -1 while this worker holds no state."""
        return -1 if self._replica is None else self._replica.applied_step

    @property
    def open_step(self) -> int:
        """The step that is worked on, or was last."""
        return self._where.step

    def register(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objects: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Says what the training state is; it must come out alike on all ranks.

        Args:
            model: its parameters and buffers.
            optimizer: over its parameters; its moments are allocated now.
            objects: things with ``state_dict`` and ``load_state_dict`` that give and take JSON values.
            artifacts: files to keep in every checkpoint, by relative path.

        Raises:
            PlanError: a parameter or the optimizer is of a kind that cannot be copied exactly.
        """
        self._replica = Replica(
            model=model,
            optimizer=optimizer,
            objects=objects or {},
            artifacts=artifacts or {},
            instance=self._desired.island,
        )
        if self._collectives is None:
            self._collectives = collectives_for(next(model.parameters()).device)

    def set_data(
        self,
        *,
        num_samples: int,
        steps: int,
        batch: BatchSpec,
        seed: int,
        schedule: Callable[[int], float],
        clip_norm: float,
    ) -> None:
        """Says what to train on: ``steps`` steps of ``batch`` out of ``num_samples`` samples; see ``WorkPlan``.

        Raises:
            DataError: there is no sample.
        """
        self._plan = WorkPlan(
            order=SampleOrder(num_samples, seed),
            steps=steps,
            batch=batch,
            seed=seed,
            schedule=schedule,
            clip_norm=clip_norm,
        )

    def on_evaluate(self, *, every: int, num_items: int, evaluate: Callable[[int], tuple[Tensor | float, int]]) -> None:
        """Every ``every`` steps, ``evaluate(item)`` gives summed loss and targets of items ``0..num_items - 1``.

        The items are dealt to the ranks. ``evaluate`` must leave the state as it is.
        """
        self._evaluation = EvaluationPlan(every, num_items, evaluate)

    @contextmanager
    def step(self) -> Iterator[StepContext]:
        """One step: inside, go through its micro-batches; on leaving, it is committed by all ranks or by none.

        An interruption by the loss of a worker is dealt with here and does not reach the caller. When the run is over
        there are no micro-batches, and nothing is committed.

        Raises:
            PreconditionError: ``register`` or ``set_data`` was not called.
        """
        self._stay_member()
        context, ballot = self._open_step()
        try:
            yield context
            if ballot is not None:
                self._commit(context, ballot)
        except (Interrupted, CollectiveError) as cause:
            self._leave(cause)
        self._stay_member()

    # -- the life of a step ------------------------------------------------------------------------------------------

    def _open_step(self) -> tuple[StepContext, Ballot | None]:
        replica, plan = self._registered()
        if self._over or self._seat is None:
            return StepContext(replica.applied_step, (), before_each=self._waiter.check), None
        record, group = self._seat.record, self._seat.group
        self._where.step = step = replica.applied_step + 1
        self._where.show(Phase.COMPUTE)
        replica.begin_step()
        everything = plan.micro_batches(step=step, cursor=replica.cursor)
        own = deal(len(everything), group.size)[group.rank]
        ballot = plan.ballot(
            everything, generation=record.generation, lineage=replica.lineage, step=step, cursor=replica.cursor
        )
        return StepContext(step, everything[own.start : own.stop], before_each=self._before_micro_batch), ballot

    def _before_micro_batch(self) -> None:
        self._waiter.check()
        self._where.reach("step.compute")

    def _commit(self, context: StepContext, ballot: Ballot) -> None:
        self._reduce(context.step)
        self._where.show(Phase.FENCE)
        self._fence.wait_until_clear(_FENCE_S)
        self._apply(self._vote(context, ballot))

    def _reduce(self, step: int) -> None:
        seat, (replica, _) = self._seated(), self._registered()
        self._where.show(Phase.REDUCE)
        self._where.reach("step.reduce")
        replica.gradients.check_bound()
        began_s = time.monotonic()
        seat.reducer.reduce(self._waiter)
        self._clock.reduce_s = time.monotonic() - began_s
        replica.retain(generation=seat.record.generation, step=step)

    def _vote(self, context: StepContext, ballot: Ballot) -> Outcome:
        seat, (replica, _) = self._seated(), self._registered()
        self._where.show(Phase.VOTE)
        began_s = time.monotonic()
        norms = replica.gradients.squared_norms(seat.group.rank, seat.group.size)
        finite = math.isfinite(context.loss_sum) and all(map(math.isfinite, norms))
        vote = VoteRecord(
            generation=ballot.generation,
            lineage=ballot.lineage,
            step=ballot.step,
            flags=self._own_flags(complete=context.complete, finite=finite),
            tokens=context.tokens,
            loss_sum=context.loss_sum,
            sample_digest=context.digest,
            squared_norms=norms,
        )
        votes = seat.ballots.collect(vote, self._waiter)
        outcome = fold(votes, ballot)
        replica.voted = outcome
        self._agreed = fold_flags(votes)
        self._where.voted_step = outcome.step
        self._clock.vote_s = time.monotonic() - began_s
        self._where.reach("vote.after")
        return outcome

    def _own_flags(self, *, complete: bool, finite: bool) -> VoteFlag:
        flags = VoteFlag.OK if complete else VoteFlag(0)
        if not finite:
            flags |= VoteFlag.NON_FINITE
        if self._instructions.stopping:
            flags |= VoteFlag.STOP
            if self._instructions.latest.checkpoint_on_stop:
                flags |= VoteFlag.SAVE_ON_STOP
        return flags

    def _apply(self, outcome: Outcome) -> None:
        seat, (replica, _) = self._seated(), self._registered()
        self._where.show(Phase.APPLYING)
        replica.apply(outcome, reach=self._where.reach)
        self._where.show(Phase.APPLIED)
        self._where.reach("apply.after")
        if outcome.reason:
            _LOG.warning("step %d is skipped: %s", outcome.step, outcome.reason)
        self._last_figures = self._figures = self._clock.commit(outcome, seat.record.generation)
        self._report_recovery(seat)

    # -- between steps -----------------------------------------------------------------------------------------------

    def _stay_member(self) -> None:
        """Carries out records until this worker is a member of the newest generation and has no duty left."""
        while not self._over:
            try:
                if self._seat is None and not self._enter():
                    self._over = True
                    return
                self._waiter.check()
                self._do_duties()
                return
            except (Interrupted, CollectiveError) as cause:
                self._leave(cause)

    def _enter(self) -> bool:
        """Waits for the next record and carries it out; False when told to stop instead."""
        replica, _ = self._registered()
        if self._where.generation == 0:
            self._where.show(Phase.READY)
            self._control.send(Ready(replica.schema_digest))
        record = self._instructions.next_record(replica.report)
        if record is None:
            return False
        rank = rank_of(record, slot=self._desired.slot, incarnation=self._desired.incarnation)
        self._where.enter(record, rank)
        entry = Entry(
            record=record,
            rank=rank,
            replica=replica,
            collectives=self._made_collectives(),
            waiter=self._waiter,
            show=self._where.show,
            reach=self._where.reach,
            evaluated_step=self._evaluated_step,
        )
        self._take_seat(entry.carry_out(), replica)
        return True

    def _take_seat(self, membership: Membership, replica: Replica) -> None:
        record = membership.record
        self._seat = _Seat(membership, replica, self._where)
        self._saved_step = record.checkpoint.step if record.checkpoint else record.checkpointed_step
        self._evaluated_step = record.target_step if membership.evaluated else -1
        self._agreed = VoteFlag(0)
        if membership.applied_open_step and record.outcome is not None:
            self._last_figures = self._figures = self._clock.commit(record.outcome, record.generation)
        elif (
            self._last_figures is not None and self._last_figures.step == record.target_step and 0 not in record.holders
        ):
            self._figures = self._last_figures  # the worker that was to report them may be the one that is lost
        self._clock.committed_s = time.monotonic()
        self._control.send(Running(record.generation))
        _LOG.info("%s: entered from step %d (%s): %s", self._where, record.target_step, record.rung, record.reason)

    def _leave(self, cause: BaseException) -> None:
        """Abandons the generation; the state and the retained gradients stay."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.group.abandon()
        self._where.show(Phase.INTERRUPTED)
        _LOG.info("%s: interrupted: %s", self._where, cause or "a newer generation calls")

    def _do_duties(self) -> None:
        """What is due at the step that all ranks have applied; after an interruption again, unless known as done."""
        seat, (replica, plan) = self._seated(), self._registered()
        step = replica.applied_step
        if self._evaluation is not None and self._evaluation.due(step) and self._evaluated_step != step:
            self._where.show(Phase.EVAL)
            loss = self._evaluation.run(seat.group, self._waiter)
            self._evaluated_step = step
            if self._figures is not None:
                self._figures = replace(self._figures, eval_loss=loss)
        self._send_figures(seat)
        if self._must_save(step, plan.steps):
            self._save(seat, replica)
        if step >= plan.steps:
            self._finish(seat, step)
        elif VoteFlag.STOP in self._agreed:
            self._over = True

    def _must_save(self, step: int, steps: int) -> bool:
        if self._checkpoints is None or step == self._saved_step:
            return False
        return self._checkpoints.due(step, steps) or VoteFlag.SAVE_ON_STOP in self._agreed

    def _save(self, seat: _Seat, replica: Replica) -> None:
        if self._checkpoints is None:
            return
        self._where.show(Phase.CHECKPOINT)
        self._checkpoints.save(
            replica,
            seat.record,
            seat.group,
            waiter=self._waiter,
            report=lambda report: self._control.send(Checkpointed(report)),
        )
        self._saved_step = replica.applied_step

    def _finish(self, seat: _Seat, step: int) -> None:
        """Stays for a moment: if another worker was lost in the last step, this one is still needed."""
        self._report_recovery(seat)
        self._where.show(Phase.FINISHED)
        self._control.send(Finished(step))
        self._instructions.wait_for_end(_LINGER_S)
        self._waiter.check()
        self._over = True

    # -- reports -----------------------------------------------------------------------------------------------------

    def _send_figures(self, seat: _Seat) -> None:
        """Rank 0 reports; where it is new and may have missed the last step, the first holder does."""
        figures, holders = self._figures, seat.record.holders
        self._figures = None
        if figures is None:
            return
        reporter = 0
        if holders and 0 not in holders and figures.step == seat.record.target_step:
            reporter = min(holders)
        if seat.group.rank == reporter:
            self._control.send(Figures((figures,)))

    def _report_recovery(self, seat: _Seat) -> None:
        if seat.reported:
            return
        seat.reported = True
        done, record = seat.membership, seat.record
        self._control.send(
            Recovered(
                RecoveryReport(
                    job_uid=record.job_uid,
                    island=record.island,
                    generation=record.generation,
                    global_rank=seat.group.rank,
                    slot=self._desired.slot,
                    rebuild_s=done.rebuild_s,
                    restore_s=done.restore_s,
                    first_step_s=time.monotonic() - seat.entered_s,
                    received_bytes=done.received_bytes,
                    applied_open_step=done.applied_open_step,
                )
            )
        )

    def _registered(self) -> tuple[Replica, WorkPlan]:
        if self._replica is None or self._plan is None:
            raise PreconditionError(
                "expected register() and set_data() before the first step, found none",
                hint="call both, then loop `while not session.done`",
            )
        return self._replica, self._plan

    def _seated(self) -> _Seat:
        if self._seat is None:
            raise CollectiveError(f"{self._where}: not a member of a generation")
        return self._seat

    def _made_collectives(self) -> Collectives:
        if self._collectives is None:
            raise PreconditionError("expected register() before the first step, found none")
        return self._collectives


def _job_spec(desired: WorkerDesired) -> JobSpec:
    return from_wire(TrainJob, desired.spec).spec if desired.spec else JobSpec()
