"""The state of a job that was just accepted."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.goodput import open_account
from trainctl.controller.domain.job_state import IslandState, JobState, Slot
from trainctl.controller.domain.spec import effective, no_effect
from trainctl.core.ids import FIRST_ISLAND
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import TrainJob
from trainctl.core.units import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What ``spec.checkpoint.resumeFrom`` means.

    Attributes:
        ref: the checkpoint to begin with.
        older: what to go back to where its bytes turn out to be damaged, newest first; none of one that was named.
        passed_over: why newer ones were not taken, in sentences.
    """

    ref: CheckpointRef
    older: tuple[CheckpointRef, ...] = ()
    passed_over: tuple[str, ...] = ()


def new_job(
    uid: str, user_spec: TrainJob, *, workdir: str, now_s: float, resume: Resume | None = None, owner: str = ""
) -> tuple[JobState, tuple[EventDraft, ...]]:
    """The state to persist for a valid spec, with the events to write in the same transaction.

    Args:
        uid: unique for ever.
        user_spec: a spec that ``validate`` has nothing to say about.
        workdir: folder or URI for checkpoints and artifacts.
        now_s: Unix seconds.
        resume: what ``spec.checkpoint.resumeFrom`` was resolved to, if anything.
        owner: name of who submits it.
    """
    spec = effective(user_spec)
    count = spec.spec.nodes.max * spec.spec.resources.workers_per_node
    slots = tuple(Slot(index=index, since_s=now_s) for index in range(count))
    state = JobState(
        uid=uid,
        spec=spec,
        user_spec=user_spec,
        workdir=workdir,
        submitted_s=now_s,
        owner=owner,
        phase_since_s=now_s,
        goodput=open_account(now_s),
        islands=(IslandState(id=FIRST_ISLAND, slots=slots),),
        resume=resume.ref if resume is not None else None,
        resume_older=resume.older if resume is not None else (),
    )
    origin = f"from checkpoint {resume.ref.uri} at step {resume.ref.step}" if resume is not None else "from step 0"
    what = (
        f"command {spec.spec.command[0]}"
        if spec.spec.command
        else f"{format_count(spec.spec.train.steps, 'step')} {origin}"
    )
    message = "; ".join([f"job {state.name} accepted: {what}", *no_effect(spec)])
    event = EventDraft(type=events.JOB_SUBMITTED, reason="Submitted", message=message, fields={"name": state.name})
    skipped = resume.passed_over if resume is not None else ()
    return state, (event, *(EventDraft(type=events.CHECKPOINT_REJECTED, reason="Damaged", message=m) for m in skipped))
