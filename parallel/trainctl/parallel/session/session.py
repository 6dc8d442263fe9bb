"""``Session``: a training loop that outlives its workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from trainctl.core.errors import CollectiveError, InternalError, PreconditionError
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.bridge import Noticed, Ready, Running
from trainctl.parallel.collectives.choice import collectives_for
from trainctl.parallel.collectives.port import Collectives, Rendezvous
from trainctl.parallel.collectives.wait import Interrupted
from trainctl.parallel.plan.sample_order import Order, SampleOrder
from trainctl.parallel.plan.vote import Agreement
from trainctl.parallel.recovery.enter import Entry
from trainctl.parallel.recovery.membership import Membership, rank_of
from trainctl.parallel.replica.replica import EMPTY, Replica
from trainctl.parallel.replica.training_state import AfterStep, Stateful, TrainingState, nothing
from trainctl.parallel.results.hook import Hook
from trainctl.parallel.results.sources import HookSource
from trainctl.parallel.session.attachment import ALONE, attached, check_alone
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.control import Control, NoControl, NoPage, ProgressPage
from trainctl.parallel.session.duties import Duties
from trainctl.parallel.session.evaluation import EvaluationPlan
from trainctl.parallel.session.oddities import Oddities
from trainctl.parallel.session.old_checkpoints import OldCheckpoints
from trainctl.parallel.session.reporter import Reporter
from trainctl.parallel.session.save_clock import SaveClocks
from trainctl.parallel.session.saves import Saves
from trainctl.parallel.session.seat import Seat
from trainctl.parallel.session.sharded_model import Build, ShardedModel
from trainctl.parallel.session.step_context import StepContext
from trainctl.parallel.session.step_protocol import StepProtocol
from trainctl.parallel.session.ways_to_save import memory_saves, storage_saves
from trainctl.parallel.session.work_plan import WorkPlan
from trainctl.parallel.session.worker_context import WorkerContext

_LOG = logging.getLogger("trainctl.session")


@dataclass(frozen=True, slots=True)
class _Run:
    """What there is once everything was registered."""

    replica: Replica
    collectives: Collectives
    host_collectives: Collectives
    protocol: StepProtocol
    duties: Duties
    reporter: Reporter
    checkpoints: Checkpoints


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

    def __init__(self, control: Control, page: ProgressPage) -> None:
        self._context = WorkerContext.of(control, page)
        self._replica: Replica | None = None
        self._collectives: Collectives | None = None
        self._device = torch.device("cpu")
        self._sharded: ShardedModel | None = None
        self._plan: WorkPlan | None = None
        self._evaluation: EvaluationPlan | None = None
        self._run: _Run | None = None
        self._seat: Seat | None = None
        self._over = False
        self._in_step = False
        self._hooks: list[HookSource] = []
        self._oddities = Oddities(self.notice)

    @classmethod
    def open(cls, *, control: Control | None = None, page: ProgressPage | None = None) -> Session:
        """A session under the agent that started this program, or of this process alone.

        Args:
            control: another agent's bridge, for tests.
            page: another progress page, for tests.

        Raises:
            PreconditionError: several processes were started by somebody else, which would not know of each other; or
                there is a session already.
        """
        found = attached()
        if control is None and found is not None:
            if found.session is not None:
                raise PreconditionError("a session is open already in this program", hint="use one session a program")
            found.session = session = cls(found.control, found.page)
            return session
        if control is None:
            check_alone(os.environ)
            _LOG.warning(ALONE)
        return cls(control or NoControl(), page or NoPage())

    @property
    def done(self) -> bool:
        """Whether the loop shall end: the last step is applied and saved, or the worker was told to stop."""
        return self._over

    @property
    def begun(self) -> bool:
        """Whether the first step was asked for."""
        return self._run is not None

    @property
    def applied_step(self) -> int:
        """Last step applied; -1 while this worker holds no state."""
        return EMPTY if self._replica is None else self._replica.applied_step

    @property
    def open_step(self) -> int:
        """The step that is worked on, or was last."""
        return self._context.where.step

    def register(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        modules: Mapping[str, nn.Module] | None = None,
        schedulers: Sequence[LRScheduler] = (),
        objects: Mapping[str, Stateful] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        after_step: AfterStep = nothing,
    ) -> None:
        """Says what the training state is; it must come out alike on all ranks.

        Args:
            model: its parameters and buffers.
            optimizer: one or several over its parameters; their moments are allocated now.
            modules: further modules by name, such as an average of the weights; brought up to date by ``after_step``.
            schedulers: of the learning rate, stepped once a committed step; then leave out ``set_data(schedule=...)``.
            objects: things with ``state_dict`` and ``load_state_dict`` that give and take JSON values; change them
                inside ``with session.step()``: what a step changed is taken back if it is repeated.
            artifacts: files to keep in every checkpoint, by relative path.
            after_step: called with the step's number on every rank, once for every committed step, whatever is lost
                meanwhile: the place to update ``modules``.

        Raises:
            PlanError: a parameter, the optimizer or an object is of a kind that cannot be copied exactly.
            PreconditionError: the first step has begun.
        """
        self._before_first_step("register")
        training = TrainingState(
            model=model,
            optimizers=(optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else tuple(optimizer),
            modules=modules or {},
            schedulers=tuple(schedulers),
            objects=objects or {},
            artifacts=artifacts or {},
            after_step=after_step,
        )
        self._replica = Replica(training, instance=self._context.desired.island)
        self._use(next(model.parameters()).device)

    def register_sharded(self, build: Build, *, device: torch.device | None = None) -> None:
        """Says how the training state is made where the model shards itself over the ranks, as FSDP2 does.

        ``build(mesh)`` is called in every generation, over its ranks, with torch's generators seeded; what it makes is
        then filled from the newest checkpoint, if there is one. Take the model from ``session.model`` in every step.
        A shard that is lost is nowhere else: a change of the ranks goes back to the newest checkpoint.

        Args:
            build: makes modules, ``fully_shard``s them over the mesh, and makes the optimizers; the same initial state
                whatever the size of the mesh.
            device: of this rank; default: CPU.
        """
        self._before_first_step("register_sharded")
        where = device or torch.device("cpu")
        self._replica = Replica(None, instance=self._context.desired.island)
        self._sharded = ShardedModel(build, where, self._replica, self._context)
        self._use(where)

    @property
    def model(self) -> nn.Module:
        """The registered model; one that shards itself is another one in every generation.

        Raises:
            PreconditionError: nothing was registered.
        """
        if self._replica is None:
            raise PreconditionError("no model is registered", hint="call register() first")
        return self._replica.training.model

    def set_data(
        self,
        *,
        num_samples: int,
        steps: int,
        batch: BatchSpec,
        seed: int,
        schedule: Callable[[int], float] | None = None,
        clip_norm: float = 0.0,
        order: Order | None = None,
    ) -> None:
        """Says what to train on: ``steps`` steps of ``batch`` out of ``num_samples`` samples; see ``WorkPlan``.

        Without ``schedule`` the learning rates are what the optimizer and the registered schedulers say.

        The samples come in ``order``, by default each once an epoch in an order of the ``seed``'s.

        Raises:
            DataError: there is no sample.
        """
        self._before_first_step("set_data")
        self._plan = WorkPlan(
            order=SampleOrder(num_samples, seed) if order is None else order,
            steps=steps,
            batch=batch,
            seed=seed,
            schedule=schedule,
            clip_norm=clip_norm,
        )

    def notice(self, text: str) -> None:
        """Tells people something although the run goes on: it becomes an event of the job, once for all who say it."""
        self._context.control.send(Noticed(text))

    def on_evaluate(self, *, every: int, num_items: int, evaluate: Callable[[int], tuple[Tensor | float, int]]) -> None:
        """Every ``every`` steps, ``evaluate(item)`` gives summed loss and targets of items ``0..num_items - 1``.

        The items are dealt to the ranks. ``evaluate`` must leave the state as it is.
        """
        self._before_first_step("on_evaluate")
        self._evaluation = EvaluationPlan(every, num_items, evaluate)

    def add_hook(self, make: Callable[[], Hook]) -> None:
        """A further hook beside those of the job file: ``make``, mostly its class, is called where the hook runs.

        Raises:
            PreconditionError: the first step has begun.
        """
        self._before_first_step("add_hook")
        name = getattr(make, "__qualname__", type(make).__name__).replace("<", "").replace(">", "")
        self._hooks.append(HookSource(name=f"{name}-{len(self._hooks)}", make=make))

    @contextmanager
    def step(self) -> Generator[StepContext, None, None]:
        """One step: inside, go through its micro-batches; on leaving, it is committed by all ranks or by none.

        An interruption by the loss of a worker is dealt with here and does not reach the caller. When the run is over
        there are no micro-batches, and nothing is committed.

        Raises:
            PreconditionError: ``register`` or ``set_data`` was not called, or a step is open already.
        """
        if self._in_step:
            raise PreconditionError("a step was begun inside another one", hint="leave `with session.step()` first")
        run = self._prepared()
        seat = self._become_member(run)
        if seat is None:
            yield StepContext(run.replica.applied_step, (), before_each=self._context.waiter.check)
            run.replica.give_up_step()  # what the loop counted in it was no step
            return
        self._oddities.changed_between(run.replica.rest)
        step = run.protocol.open(seat)
        self._oddities.begun(step.context.step)
        self._in_step = True
        try:
            yield step.context
            self._oddities.changed_inside(run.replica.rest)
            run.reporter.note_commit(run.protocol.commit(seat, step))
            seat.report_recovery()
        except (Interrupted, CollectiveError) as cause:
            self._leave(cause)
        except Exception as error:
            if not (isinstance(error, RuntimeError) and self._sharded and self._sharded.is_interruption(error)):
                self._oddities.left(step.context.step, error)
                run.replica.give_up_step()
                raise
            self._leave(error)
        finally:
            self._in_step = False
        self._become_member(run)

    def close(self) -> None:
        """Ends this worker's part: leaves the group without waiting. Safe to repeat; ``done`` from now on."""
        self._over = True
        self._vacate()
        if self._run is not None:
            self._run.reporter.close(self.applied_step)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _become_member(self, run: _Run) -> Seat | None:
        """Enters generations until this worker sits in the newest with no duty left; None if the run is over for it."""
        while not self._over:
            try:
                self._seat = seat = self._seat or self._enter(run)
                if seat is None:
                    self._over = True
                    break
                self._context.waiter.check()
                if not run.duties.carry_out(seat, run.protocol.agreed):
                    return seat
                self.close()
            except (Interrupted, CollectiveError) as cause:
                self._leave(cause)
            except RuntimeError as error:  # in the user's evaluation
                if self._sharded is None or not self._sharded.is_interruption(error):
                    raise
                self._leave(error)
        return None

    def _enter(self, run: _Run) -> Seat | None:
        """Waits for the next record and carries it out; None when told to stop instead."""
        context, where = self._context, self._context.where
        record = context.instructions.next_record(self._report)
        if record is None:
            return None
        rank = rank_of(record, slot=context.desired.slot, incarnation=context.desired.incarnation)
        where.enter(record, rank)
        run.reporter.hand_over(record)
        if record.predecessor == 0 and os.environ.get("LOCAL_RANK", "0") == "0":
            run.checkpoints.try_out()  # later, what is trained already counts more than what can be saved
        membership = Entry(
            record=record,
            rank=rank,
            replica=run.replica,
            collectives=run.collectives,
            waiter=context.waiter,
            show=where.show,
            reach=where.reach,
            evaluated_step=run.duties.evaluated_step,
            apply=lambda outcome: run.reporter.note_commit(run.protocol.apply(outcome, record.generation)),
            recent=lambda: run.reporter.recent(record),
            prepare=self._build_shards,
            transfers=context.transfers,
            memory=context.memory,
        ).carry_out()
        seat = Seat(membership, run.replica, context, *self._saves(run, membership))
        run.protocol.agreed = Agreement()
        run.duties.note_entry(seat)
        run.protocol.clock.restart()
        context.control.send(Running(record.generation))
        self._oddities.entered(rank=rank, ranks=seat.group.size, micro_batches=run.protocol.micro_batches)
        _LOG.info("%s: entered with step %d (%s) %s", where, record.target_step, record.rung.value, record.reason)
        return seat

    def _saves(self, run: _Run, membership: Membership) -> tuple[Saves, Saves | None]:
        context, saved, replica = self._context, run.checkpoints, run.replica
        to_storage = storage_saves(saved, replica, membership, context, reporter=run.reporter, notice=self.notice)
        to_memory = memory_saves(
            saved, replica, membership, context, host_collectives=run.host_collectives, notice=self.notice
        )
        return to_storage, to_memory

    def _report(self, generation: int) -> StepReport:
        """What this worker holds, and its node."""
        if self._replica is None:
            raise InternalError("a worker was asked what it holds before it registered anything")
        memory = self._context.memory
        snapshots = memory.held() if memory is not None else ()
        return replace(self._replica.report(generation), snapshots=snapshots)

    def _leave(self, cause: BaseException) -> None:
        """Abandons the generation; the state and the retained gradients stay."""
        self._vacate()
        if self._sharded is not None and self._replica is not None:
            self._replica.make_empty()  # what is left is one shard of many
        self._context.where.show(Phase.INTERRUPTED)
        _LOG.info("%s: interrupted: %s", self._context.where, str(cause) or "a newer generation calls")

    def _vacate(self) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            for saves in seat.all_saves:
                saves.abandon()
            seat.group.abandon()
        if self._sharded is not None:
            self._sharded.leave()

    def _build_shards(self, rendezvous: Rendezvous) -> None:
        if self._sharded is not None and self._plan is not None:
            self._sharded.enter(rendezvous, self._plan.seed)

    def _use(self, device: torch.device) -> None:
        self._device, self._collectives = device, collectives_for(device)

    def _before_first_step(self, what: str) -> None:
        if self._run is not None:
            raise PreconditionError(
                f"{what} was called after the first step had begun",
                hint="say everything before the loop: the other ranks count on it",
            )

    def _prepared(self) -> _Run:
        if self._run is not None:
            return self._run
        replica, plan, collectives = self._replica, self._plan, self._collectives
        if replica is None or plan is None or collectives is None:
            raise PreconditionError(
                "expected register() and set_data() before the first step, but one is missing",
                hint="call both, then loop `while not session.done`",
            )
        replica.sets_learning_rate = plan.schedule is not None
        context = self._context
        reporter = Reporter(context, steps=plan.steps, hooks=self._hooks)
        clocks = SaveClocks()
        checkpoints = Checkpoints.of_job(context.spec.checkpoint, context.desired.workdir, context.faults)
        old = OldCheckpoints(checkpoints, context.desired, context.instructions, tell=context.control.send)
        context.control.on_change(old.look)
        duties = Duties(
            context,
            replica,
            steps=plan.steps,
            evaluation=self._evaluation,
            checkpoints=checkpoints,
            reporter=reporter,
            clocks=clocks,
            old=old,
        )
        protocol = StepProtocol(context, replica, plan, clocks)
        host = torch.device("cpu")
        between_hosts = collectives if self._device == host else collectives_for(host)
        self._run = _Run(replica, collectives, between_hosts, protocol, duties, reporter, checkpoints)
        context.where.show(Phase.READY)
        context.control.send(Ready(plan.steps))
        return self._run
