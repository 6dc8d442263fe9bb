"""What one optimizer step leaves behind: its outcome, and what a survivor of an interrupted step can tell of it."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.core.records.snapshot import SnapshotHeld
from trainctl.core.records.word import Word


class StepAction(Word):
    """What every rank does with the gradients of a voted step. A skip commits the step, too.

    Controllers only pass it on; an agent refuses an instruction with one that it does not know.
    """

    APPLY = "apply"
    SKIP = "skip"


class Phase(Word):
    """Where in the life of a step a worker is; published on its progress page (design section 5)."""

    BOOTING = "booting"
    READY = "ready"
    REBUILD = "rebuild"
    RESTORE = "restore"
    COMPUTE = "compute"
    REDUCE = "reduce"
    FENCE = "fence"
    VOTE = "vote"
    APPLYING = "applying"
    APPLIED = "applied"
    EVAL = "eval"
    CHECKPOINT = "checkpoint"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    COMMAND = "command"
    HELD = "held"
    """Waits between two steps, together with all others, until the controller says how it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of the vote on one step: folded from the same records in the same order by every rank.

    Attributes:
        generation: the generation whose ranks voted; with ``lineage`` and ``step`` it names the gradient.
        lineage: the chain of steps this one belongs to.
        step: 1-based number of the step.
        action: apply or skip.
        gradient_scale: what the *summed* gradient is multiplied with: 1/tokens times the clip factor.
        learning_rate: of this step, for every rank alike.
        loss_sum: summed loss (nats) over ``tokens`` targets.
        tokens: targets counted in the global batch.
        gradient_norm: Euclidean norm of the mean gradient before clipping.
        cursor: samples consumed by the lineage after this step; the data cursor that the vote advanced.
        sample_digest: order-free digest of the sample ids of the global batch.
        reason: why it was skipped, or an empty string.
    """

    generation: int
    lineage: int
    step: int
    action: StepAction
    gradient_scale: float
    learning_rate: float
    loss_sum: float
    tokens: int
    gradient_norm: float
    cursor: int
    sample_digest: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a worker holds when it has stopped for ``prepared_generation``: the input of the recovery decision.

    Attributes:
        prepared_generation: the generation this report was made for.
        lineage: lineage of the state held.
        applied_step: last step applied to the state; -1 when the worker holds no state (an empty joiner).
        voted: newest outcome this worker saw, applied or not; None if it saw none.
        retained_generation: generation in which the complete reduced gradient held was made; 0 if none is held.
        retained_step: step of that gradient; 0 if none is held.
        schema_digest: digest of the state's names, dtypes and shapes; equal on all ranks of an island.
        state_bytes: size of one full copy of that state.
        pristine: it can still stand on the initial state: nothing was trained with it, received or loaded into it.
        snapshots: complete ones of the job in the memory of its node, oldest first.
    """

    prepared_generation: int
    lineage: int
    applied_step: int
    voted: Outcome | None = None
    retained_generation: int = 0
    retained_step: int = 0
    schema_digest: str = ""
    state_bytes: int = 0
    pristine: bool = False
    snapshots: tuple[SnapshotHeld, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """One committed step, for people and metrics; sent when the controller is there, and nobody waits for it.

    Attributes:
        step: 1-based.
        generation: generation that committed it.
        lineage: lineage it belongs to.
        loss: mean loss in nats per token.
        learning_rate: of this step.
        gradient_norm: before clipping.
        tokens: in this step's global batch.
        cursor: samples consumed after this step.
        sample_digest: of this step's global batch.
        step_s: wall seconds since the previous commit of this worker.
        vote_s: wall seconds of the vote, waiting for slower ranks included.
        reduce_s: wall seconds of the gradient reduction after the backward pass.
        wall_s: Unix time of the commit on the reporting node.
        skipped: the outcome was a skip.
        eval_loss: held-out loss after this step, when it was evaluated.
    """

    step: int
    generation: int
    lineage: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    cursor: int
    sample_digest: int
    step_s: float
    vote_s: float
    reduce_s: float
    wall_s: float
    skipped: bool = False
    eval_loss: float | None = None
