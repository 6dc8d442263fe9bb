"""The built-in training loop: the first user of ``Session``, and the example of how to use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.compiling import compile_model
from trainctl.parallel.data.corpus import names_of
from trainctl.parallel.data.order import order_of
from trainctl.parallel.data.prefetch import Prefetcher
from trainctl.parallel.optim import build_optimizer
from trainctl.parallel.plan.learning_rate import learning_rate_schedule
from trainctl.parallel.replica.generators import seed_generators
from trainctl.parallel.session import Session
from trainctl.parallel.tasks.data_identity import DataIdentity
from trainctl.parallel.tasks.evaluation import Evaluation
from trainctl.parallel.tasks.registry import check, find_task
from trainctl.parallel.tasks.task import Evaluate, TaskContext, TaskParts

CPU = torch.device("cpu")


def train(session: Session, spec: TrainSpec, cache_dir: str, device: torch.device = CPU) -> None:
    """Trains to the last step. Recovery, elastic membership, checkpoints and figures are the session's business.

    Raises:
        SpecError: the spec cannot be carried out.
        DataError: the data is missing or unusable.
    """
    prepared = prepare(spec, cache_dir, device)
    prepared.register(session)
    task = prepared.task
    with Prefetcher(task.dataset.batch, depth=prepared.prefetch) as batches:
        while not session.done:
            with session.step() as step:
                for micro_batch in step.micro_batches():
                    upcoming = (later.sample_ids for later in step.upcoming())
                    batch = batches.take(micro_batch.sample_ids, upcoming, step.while_waiting)
                    loss_sum, tokens = task.loss(batch)
                    step.backward(loss_sum, tokens)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be ready before a worker knows its rank: a replacement builds it while the others decide."""

    spec: TrainSpec
    task: TaskParts
    optimizer: torch.optim.Optimizer

    def register(self, session: Session) -> None:
        """Tells the session what the state is, what to train on, and how to evaluate."""
        spec, task = self.spec, self.task
        objects = {
            "data": DataIdentity(task.data_digest or f"{task.dataset.num_samples} samples", uri=names_of(spec.data))
        }
        session.register(model=task.model, optimizer=self.optimizer, objects=objects, artifacts=task.artifacts)
        session.set_data(
            num_samples=task.dataset.num_samples,
            steps=spec.steps,
            batch=spec.batch,
            seed=spec.seed,
            schedule=learning_rate_schedule(spec.schedule, peak=spec.optimizer.lr, steps=spec.steps),
            clip_norm=spec.optimizer.clip_norm,
            order=order_of(task.dataset, count=task.dataset.num_samples, seed=spec.seed, batch=spec.batch),
        )
        if notice := getattr(task.dataset, "notice", ""):
            session.notice(notice)
        evaluation = self.evaluation()
        if evaluation is not None:
            session.on_evaluate(every=spec.eval.every, num_items=evaluation.num_items, evaluate=evaluation)

    @property
    def prefetch(self) -> int:
        """Batches to make ahead in a thread; none of a data set that does not say that it bears one."""
        return self.spec.data.prefetch if getattr(self.task.dataset, "thread_safe", False) else 0

    def evaluation(self) -> Evaluate | None:
        """The task's own evaluation, or that of its held-out samples."""
        spec, task = self.spec, self.task
        if task.evaluation is not None or task.eval_dataset is None:
            return task.evaluation
        return Evaluation(spec.eval, task.model, task.eval_dataset, task.loss, item_samples=self.samples)

    @property
    def samples(self) -> int:
        """Of a micro-batch."""
        return max(1, self.spec.batch.sequences // self.spec.batch.micro_batches)


def prepare(spec: TrainSpec, cache_dir: str, device: torch.device) -> Prepared:
    """Data, model and optimizer, on ``device``.

    Raises:
        SpecError: the spec cannot be carried out.
        DataError: the data is missing or unusable.
    """
    check(spec)
    seed_generators(spec.seed)
    task = find_task(spec.task).build(TaskContext(spec=spec, device=device, cache_dir=Path(cache_dir)))
    prepared = Prepared(spec, task, task.optimizer or build_optimizer(task.model, spec.optimizer))
    if spec.compile:
        evaluation = prepared.evaluation() if spec.eval.every else None
        compile_model(task, evaluation, samples=prepared.samples, cache_dir=Path(cache_dir), device=device)
    return prepared
