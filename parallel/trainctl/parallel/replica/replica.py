"""One worker's copy of the training state, and where in the run it stands.

Everything here is local: no other rank is heard. ``applied_step`` is -1 while the copy is no consistent state: before
the first generation, while it is received or loaded, and between applying(s) and applied(s).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from trainctl.checkpoint.kept.origin import Imported
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.live.optimizer_state import OptimizerState
from trainctl.checkpoint.live.state import LocalState, state_of
from trainctl.checkpoint.save.description import schema_digest
from trainctl.core.errors import InternalError, PlanError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.step import Outcome, StepAction, StepReport
from trainctl.parallel.plan.randomness import derive_seed
from trainctl.parallel.replica.digest import tensors_digest
from trainctl.parallel.replica.generators import seed_generators
from trainctl.parallel.replica.gradients import Gradients
from trainctl.parallel.replica.holding import Holding, Sharded, Whole
from trainctl.parallel.replica.rest import Rest
from trainctl.parallel.replica.training_state import TrainingState

EMPTY = -1
"""``applied_step`` of a worker that holds no state."""


class Replica:
    """State and position.

    Args:
        training: what it is a copy of; None where each rank holds a shard: ``install`` brings it in every generation.
        instance: the island.

    Attributes:
        training: what it is a copy of.
        holding: what of the state of all ranks this one has.
        gradients: accumulated, then reduced, then retained until the step is settled.
        lineage: chain of steps that the state belongs to.
        applied_step: step that the state is at; ``EMPTY`` if it is none.
        cursor: samples consumed up to there.
        voted: newest outcome seen, applied or not.
        retained_generation: generation that made the complete reduced gradient held; 0 if none is held.
        retained_step: step of it; 0 if none is held.
        as_built: what the loop registered has made no step and got nothing from others, whatever the weights are.
        pristine: the state is still the initial one, as the seed made it.
        checkpoint: newest complete checkpoint of this lineage: the parent of the next.
        rest: the objects as they belong to ``applied_step``; None as long as the worker stood at none.
        sets_learning_rate: the outcome's learning rate counts; otherwise the loop's own schedulers say it.
    """

    def __init__(self, training: TrainingState | None, *, instance: str) -> None:
        self.holding: Holding = Whole() if training is not None else Sharded()
        self.sets_learning_rate = True
        self._instance = instance
        self.lineage = 0
        self.applied_step = EMPTY
        self.cursor = 0
        self.voted: Outcome | None = None
        self.retained_generation = 0
        self.retained_step = 0
        self.as_built = True
        self.pristine = True
        self.checkpoint: CheckpointRef | None = None
        self.rest: Rest | None = None
        self._initial_objects: dict[str, Any] | None = None
        self.install(training or TrainingState(model=nn.Module(), optimizers=()))
        if training is None:
            self.schema_digest, self._initial_objects = "", None  # of nothing

    def install(self, training: TrainingState) -> None:
        """Takes over freshly built modules and optimizers: the initial state, which nothing is known of yet.

        Raises:
            PlanError: a parameter, an optimizer or an object is of a kind that cannot be copied exactly.
        """
        training.check()
        groups = tuple(training.parameter_groups())
        self.gradients: Gradients = self.holding.gradients(groups)
        self.training = training
        if self._initial_objects is None:
            self._initial_objects = copy.deepcopy(training.export_objects(hyperparameters=False))
        else:  # built again: what the loop has of its own lives on, and begins anew, too
            training.import_objects(copy.deepcopy(self._initial_objects), hyperparameters=False)
        self._group_sizes = _sizes(groups)
        self._optimizers = [OptimizerState(optimizer) for optimizer in training.optimizers]
        self.holding.adopt(training.model)
        self.discard()
        self.rest = None
        self.applied_step = EMPTY
        self.as_built = True
        self.pristine = True
        initial = self.state(StateVersion(0, 0))
        self.schema_digest = schema_digest(initial)
        self.state_bytes = initial.full_bytes()

    def state(self, version: StateVersion) -> LocalState:
        """The live tensors, named as being of ``version``, and the objects."""
        training = self.training
        for optimizer in self._optimizers:
            optimizer.check()
        self.holding.settle(training.model)
        return state_of(
            training.model,
            training.optimizers,
            modules=training.modules,
            instance=self._instance,
            version=version,
            objects=self.export_objects(),
            artifacts=training.artifacts,
        )

    def digest(self) -> str:
        """Of all bits of the state, to compare with other ranks; empty where those have something else."""
        if not self.holding.alike:
            return ""
        return tensors_digest(tensor.tensor for tensor in self.state(StateVersion(0, 0)).tensors)

    def begin_step(self) -> None:
        """Forgets the retained gradients (their step is settled) and starts with zeros.

        Raises:
            PlanError: an optimizer has other parameters than when it was registered.
        """
        found = _sizes(self.training.parameter_groups())
        if found != self._group_sizes:
            raise PlanError(
                f"expected parameter groups of {self._group_sizes} parameters, as registered, found {found}",
                hint="add all parameter groups before session.register(...)",
            )
        self.discard()
        self.gradients.clear()

    def retain(self, *, generation: int, step: int) -> None:
        """The gradients are complete and reduced: from now on the step can be applied whenever its outcome is known."""
        self.retained_generation = generation
        self.retained_step = step

    def discard(self) -> None:
        """Gives the retained gradients up."""
        self.retained_generation = 0
        self.retained_step = 0

    def can_apply(self, outcome: Outcome) -> bool:
        """Whether the state and the retained gradients are those that ``outcome`` was voted for."""
        return (
            self.lineage == outcome.lineage
            and self.applied_step == outcome.step - 1
            and self.retained_step == outcome.step
            and self.retained_generation == outcome.generation
        )

    def apply(self, outcome: Outcome, *, reach: Callable[[str], None]) -> None:
        """Commits a step: optimizer step, or nothing for a skip, and the cursor. Whoever is interrupted here is lost.

        Args:
            outcome: of the vote.
            reach: fault points.

        Raises:
            InternalError: the outcome is of another step or gradient.
        """
        if not self.can_apply(outcome):
            raise InternalError(
                f"expected the gradient of step {outcome.step} of generation {outcome.generation} on step "
                f"{outcome.step - 1}, found that of step {self.retained_step} of generation "
                f"{self.retained_generation} on step {self.applied_step}"
            )
        self.applied_step = EMPTY
        self.as_built = False
        self.pristine = False
        if outcome.action is StepAction.APPLY:
            self.gradients.scale(outcome.gradient_scale)
            seed_generators(derive_seed(outcome.step))  # an optimizer that rounds at random does so alike on all ranks
            self._step(outcome.learning_rate)
        for scheduler in self.training.schedulers:
            scheduler.step()
        self.training.after_step(outcome.step)
        reach("apply.in")
        self.discard()
        self.stand_at(lineage=outcome.lineage, step=outcome.step, cursor=outcome.cursor)
        self.voted = outcome

    def _step(self, learning_rate: float) -> None:
        if self.sets_learning_rate:
            for group in self.training.parameter_groups():
                group["lr"] = learning_rate
        self.holding.settle(self.training.model)
        for optimizer in self._optimizers:
            optimizer.step()

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group, as it stands."""
        return float(next(iter(self.training.parameter_groups()))["lr"])

    def make_empty(self) -> None:
        """From now on the tensors are being overwritten."""
        self.discard()
        self.applied_step = EMPTY
        self.as_built = False
        self.pristine = False

    def stand_at(self, *, lineage: int, step: int, cursor: int) -> None:
        """The tensors and objects are the state of ``step``."""
        self.lineage = lineage
        self.applied_step = step
        self.cursor = cursor
        self._rest_here()

    def _rest_here(self) -> None:
        own = not self.sets_learning_rate
        self.rest = Rest(self.training, hyperparameters=own, watch_tensors=self.holding.counts_writes)

    def give_up_step(self) -> None:
        """The open step is to be repeated: nothing of it stays."""
        self.discard()
        if self.rest is not None:
            self.rest.put_back()

    def report(self, prepared_generation: int) -> StepReport:
        """What this worker can say to the recovery decision."""
        return StepReport(
            prepared_generation=prepared_generation,
            lineage=self.lineage,
            applied_step=self.applied_step,
            voted=self.voted,
            retained_generation=self.retained_generation,
            retained_step=self.retained_step,
            schema_digest=self.schema_digest,
            state_bytes=self.state_bytes,
            pristine=self.pristine or self.holding.rebuilt,
        )

    def export_objects(self) -> dict[str, Any]:
        """The cursor and the registered objects as JSON values."""
        registered = self.training.export_objects(hyperparameters=not self.sets_learning_rate)
        optimizers = [optimizer.export() for optimizer in self._optimizers]
        return {"cursor": self.cursor, "registered": registered, "optimizers": optimizers}

    def adopt_registered(self, values: Mapping[str, Any]) -> None:
        """Loads the registered objects of another rank, and nothing else.

        Raises:
            PlanError: they are not those that were registered here.
        """
        self.training.import_objects(values, hyperparameters=not self.sets_learning_rate)
        self._rest_here()

    def begin_with(self, origin: Imported, values: Mapping[str, Any]) -> int:
        """What was registered stays as it was built, since nobody saved it; returns the cursor.

        Raises:
            PlanError: there is the state of another number of optimizers.
        """
        self.as_built = True
        if origin.optimizer:
            self._load_optimizers(values["optimizers"])
        return origin.cursor

    def import_objects(self, values: Mapping[str, Any]) -> int:
        """Loads the registered objects; returns the cursor.

        Raises:
            PlanError: they are not those that were registered here.
        """
        if "cursor" not in values:
            raise PlanError(
                "expected the checkpoint of a job, found one that does not say where in the data it was",
                hint="begin without resumeFrom; for its weights alone see docs/howto/checkpoint-library.md",
            )
        self.training.import_objects(values["registered"], hyperparameters=not self.sets_learning_rate)
        # older checkpoints: Adam, after a step
        self._load_optimizers(values.get("optimizers", [{}] * len(self._optimizers)))
        return int(values["cursor"])

    def _load_optimizers(self, optimizers: Sequence[Mapping[str, Any]]) -> None:
        if len(optimizers) != len(self._optimizers):
            raise PlanError(
                f"expected the state of {len(self._optimizers)} optimizers, found {len(optimizers)}",
                hint="use the optimizers that the state was saved with, or begin without resumeFrom",
            )
        for optimizer, saved in zip(self._optimizers, optimizers, strict=True):
            optimizer.load(saved)


def _sizes(groups: Iterable[Mapping[str, Any]]) -> list[int]:
    return [len(group["params"]) for group in groups]
