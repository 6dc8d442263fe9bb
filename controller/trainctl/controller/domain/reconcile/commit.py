"""Committing a generation: when all its members have stopped and reported, one record settles what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainctl.checkpoint.layout.key import StateVersion
from trainctl.controller.domain import events, snapshots, step_ranges
from trainctl.controller.domain.ancestry import Ancestor, gone_back
from trainctl.controller.domain.command import start_command
from trainctl.controller.domain.conditions import DEGRADED, with_condition
from trainctl.controller.domain.goodput import Bucket, move
from trainctl.controller.domain.hang import typical_step_s
from trainctl.controller.domain.island_layout import checkpoint_layout, island_layout, snapshot_layout
from trainctl.controller.domain.job_records import JobFailure
from trainctl.controller.domain.job_state import Cause, Hold, Proposal, global_ranks
from trainctl.controller.domain.reconcile.budgets import DETERMINISTIC_HINTS
from trainctl.controller.domain.reconcile.evidence import (
    InMemory,
    Settled,
    newest_vote,
    schema_conflict,
    settle,
    snapshots_in_memory,
    starters,
)
from trainctl.controller.domain.reconcile.lifecycle import attempt_restoring, fail_job, wait_in
from trainctl.controller.domain.reconcile.recoveries import update_recovery
from trainctl.controller.domain.reconcile.refused import sources
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.recovery import Costs, Decision, Givers, Situation, choose_recovery
from trainctl.controller.domain.snapshot_words import why_lost
from trainctl.controller.domain.states import GenerationPhase, Machine, SlotState, advance
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.step import StepReport
from trainctl.core.units import format_count


def accept_evidence(work: Work) -> None:
    """Keeps the newest vote that any report shows: it is honoured even if its reporter dies before the commit."""
    known = work.island.evidence
    for report in _reports(work).values():
        known = newest_vote(work.island.record, known, report)
    if known != work.island.evidence:
        work.set_island(evidence=known)


def commit(work: Work) -> None:
    """Commits the proposal once it is complete; until then notes how far the members are."""
    proposal = work.island.proposal
    if proposal is None:
        return
    reports = _reports(work)
    _note_progress(work, proposal, reports)
    if set(reports) != set(proposal.slots):
        return
    conflict = schema_conflict(sorted(reports.items()))
    if conflict:
        hint = DETERMINISTIC_HINTS["SCHEMA_MISMATCH"]
        fail_job(work, JobFailure(code="SCHEMA_MISMATCH", message=f"job {work.job.name}: {conflict}", hint=hint))
        return
    store = _choose_store(work, proposal)
    if not store:
        wait_in(work, "WaitingForStore", "no agent of the job offers a collective store yet")
        return
    _commit(work, proposal, reports, store)


def _reports(work: Work) -> dict[int, StepReport]:
    """Answers to the PREPARE of the proposal, by slot."""
    proposal = work.island.proposal
    if proposal is None:
        return {}
    reports: dict[int, StepReport] = {}
    for slot in work.slots():
        if not proposal.takes(slot.index) or not slot.alive or slot.state is SlotState.STARTING:
            continue
        seen = work.observed(slot)
        if seen is not None and seen.report is not None and seen.report.prepared_generation == proposal.generation:
            reports[slot.index] = seen.report
    return reports


def _note_progress(work: Work, proposal: Proposal, reports: Mapping[int, StepReport]) -> None:
    """Fills the recovery's marks: survivors have stopped, newcomers have booted."""
    marks = work.island.marks
    if marks is None:
        return
    answered = {work.slot(index).incarnation for index in reports}
    if not marks.stopped_s and answered.issuperset(marks.survivors):
        marks = replace(marks, stopped_s=work.now_s)
    if not marks.booted_s and set(reports) == set(proposal.slots):
        marks = replace(marks, booted_s=work.now_s)
    if marks != work.island.marks:
        work.set_island(marks=marks)


def _choose_store(work: Work, proposal: Proposal) -> str:
    """The store of an agent that hosts members and lost none, else of any agent that is there."""
    recovery = work.job.recoveries[-1] if work.island.marks is not None and work.job.recoveries else None
    hit = set(recovery.slots) if recovery is not None else set[int]()
    unlucky = {work.slot(i).agent_incarnation for i in hit if proposal.takes(i)}
    hosting = {work.slot(i).agent_incarnation for i in proposal.slots}
    offers = [
        (a.agent_incarnation not in hosting, a.agent_incarnation in unlucky, len(a.node), a.node, a.store_address)
        for a in work.view.agents
        if a.connected and not a.process_exited and a.store_address and a.last_heard_age_s <= work.timeouts.suspect_s
    ]
    return min(offers)[-1] if offers else ""


def _commit(work: Work, proposal: Proposal, reports: Mapping[int, StepReport], store: str) -> None:
    previous = work.island.record
    settled = _without_holders(work, _settled(work, reports))
    decision = _decide(work, proposal, settled, reports)
    _note_snapshots(work, proposal, settled, decision, reports)
    members = global_ranks(work.slot(index) for index in proposal.slots)
    holding = frozenset(_holders(settled, decision, reports))
    record = GenerationRecord(
        job_uid=work.job.uid,
        island=work.island.id,
        job_generation=1,
        generation=proposal.generation,
        predecessor=previous.generation if previous is not None else 0,
        epoch=work.epoch,
        nonce=work.ids.nonce(),
        # Without a holder nobody knows what the old lineage voted last: what follows must not be mixed up with it.
        lineage=settled.lineage + (1 if decision.goes_back and previous is not None else 0),
        members=members,
        store_address=store,
        target_step=decision.target_step,
        outcome=settled.outcome if settled.pending and not decision.goes_back else None,
        rung=decision.rung,
        holders=tuple(m.global_rank for m in members if m.slot in holding),
        checkpoint=decision.checkpoint or _parent(work, decision),
        snapshot=decision.snapshot,
        checkpointed_step=_checkpointed_step(work, decision),
        reason=decision.reason,
        restarts=previous.restarts + 1 if previous is not None else 0,
        reporter=previous.members[0].incarnation if previous is not None else 0,
    )
    if decision.target_step != settled.step:
        _roll_back(work, settled, decision)
    if record.lineage != settled.lineage:
        ancestors = gone_back(_ancestors(work), lineage=settled.lineage, step=decision.target_step)
        work.set_island(ancestors=ancestors)
    _adopt(work, proposal, record, decision)


def _holders(settled: Settled, decision: Decision, reports: Mapping[int, StepReport]) -> tuple[int, ...]:
    """Slots that the others copy from."""
    match decision.givers:
        case Givers.HOLDERS:
            return settled.holders
        case Givers.STARTERS:
            return starters(reports)
        case Givers.NOBODY:
            return ()


def _decide(work: Work, proposal: Proposal, settled: Settled, reports: Mapping[int, StepReport]) -> Decision:
    """How the members come to one state; of a command it is none of ours."""
    if work.job.spec.spec.runs_command:
        return start_command(len(proposal.slots), again_because=proposal.reason if work.island.record else "")
    state_bytes = max(report.state_bytes for report in reports.values())
    return choose_recovery(_situation(work, proposal, settled, reports, state_bytes))


def _settled(work: Work, reports: Mapping[int, StepReport]) -> Settled:
    record = work.island.record
    if record is not None:
        settled = settle(record, work.island.evidence, reports)
        return settled if settled.holders else replace(settled, step=max(settled.step, _last_known_step(work, record)))
    resume = work.job.resume
    if resume is None:
        return Settled(lineage=1, step=0, outcome=None, holders=(), pending=False)
    return Settled(lineage=resume.lineage + 1, step=resume.step, outcome=None, holders=(), pending=False)


def _without_holders(work: Work, settled: Settled) -> Settled:
    """A roll-back that the user wants: what the workers hold does not count."""
    record = work.island.record
    if work.job.rollback is None or record is None:
        return settled
    step = max(settled.step, _last_known_step(work, record))
    return replace(settled, step=step, outcome=None, holders=(), pending=False)


def _last_known_step(work: Work, record: GenerationRecord) -> int:
    """With every state lost, figures and checkpoints still tell how far the lineage was: what will be redone."""
    progress = work.job.progress
    saved = max((ref.step for ref in work.job.checkpoints if ref.lineage == record.lineage), default=0)
    return max(saved, progress.step if progress.lineage == record.lineage else 0)


def _situation(
    work: Work, proposal: Proposal, settled: Settled, reports: Mapping[int, StepReport], state_bytes: int
) -> Situation:
    train = work.job.spec.spec.train
    island = work.island
    previous = island.record
    version = StateVersion(lineage=settled.lineage, step=settled.step)
    ranks = {slot: rank for rank, slot in enumerate(proposal.slots)}
    before = {m.slot: m.incarnation for m in previous.members} if previous is not None else {}
    holders = [ranks[slot] for slot in settled.holders]
    in_memory = _in_memory(work, settled, reports)
    return Situation(
        target_step=settled.step,
        initial=previous is None,
        wanted=island_layout(island.id, train, version, ranks.values()),
        live=island_layout(island.id, train, version, holders),
        snapshots=tuple((ref, snapshot_layout(island.id, train, held)) for ref, held in in_memory),
        nodes=tuple(work.slot(slot).node for slot in proposal.slots),
        on_disk=work.job.spec.spec.checkpoint.snapshots.on_disk,
        no_snapshot=_no_snapshot(work, proposal, in_memory),
        checkpoints=tuple((ref, checkpoint_layout(island.id, train, ref)) for ref in sources(work.job)),
        resume=work.job.resume,
        joiners=len(proposal.slots) - len(holders),
        replaced=sum(1 for s in proposal.slots if s in before and before[s] != work.slot(s).incarnation),
        short=sum(1 for slot in before if not proposal.takes(slot)),
        grown=sum(1 for slot in proposal.slots if before and slot not in before),
        costs=Costs(step_s=typical_step_s(work.job.progress.recent_step_s) or 0.0, state_bytes=state_bytes),
        stood_step=_stood_step(work),
    )


def _in_memory(work: Work, settled: Settled, reports: Mapping[int, StepReport]) -> InMemory:
    """What the members' nodes have in memory; nothing where the user wants to go back to a checkpoint."""
    if work.job.rollback is not None:
        return ()
    return snapshots_in_memory(
        ((work.slot(slot).node, report) for slot, report in reports.items()),
        lineage=settled.lineage,
        ancestors=_ancestors(work),
        lost=work.job.lost_snapshots,
    )


def _ancestors(work: Work) -> tuple[Ancestor, ...]:
    """Those of the last record's lineage; an older controller noted none, but the snapshot that it began with."""
    island = work.island
    if island.ancestors or island.record is None or island.record.snapshot is None:
        return island.ancestors
    return gone_back((), lineage=island.record.snapshot.lineage, step=island.record.snapshot.step)


def _no_snapshot(work: Work, proposal: Proposal, in_memory: InMemory) -> str:
    """Why the newest snapshot cannot be gone back to; empty where it can, or where none is known of."""
    if not work.job.spec.spec.checkpoint.snapshots.wanted:
        return ""
    if work.job.rollback is not None:
        return "the roll-back that was asked for goes to a checkpoint"
    nodes = {work.slot(slot).node for slot in proposal.slots}
    on_disk = work.job.spec.spec.checkpoint.snapshots.on_disk
    return why_lost(work.job.snapshot_figures, in_memory, nodes=nodes, lost=work.job.lost_snapshots, on_disk=on_disk)


def _note_snapshots(
    work: Work, proposal: Proposal, settled: Settled, decision: Decision, reports: Mapping[int, StepReport]
) -> None:
    """Those that the next generation could go back to: of its lineage, or of what it begins with."""
    if not work.job.spec.spec.checkpoint.snapshots.wanted:
        return
    there = _in_memory(work, settled, reports)
    kept = [(ref, held) for ref, held in there if not decision.goes_back or ref.step <= decision.target_step]
    figures = snapshots.found(work.job.snapshot_figures, kept, generation=proposal.generation)
    work.set_job(snapshot_figures=figures)


def _stood_step(work: Work) -> int:
    """Newest step before the recovery in progress, which may have gone back already to what is lost now, too."""
    if work.island.marks is None or not work.job.recoveries:
        return 0
    recovery = work.job.recoveries[-1]
    return recovery.target_step + recovery.lost_steps


def _checkpointed_step(work: Work, decision: Decision) -> int:
    return max((ref.step for ref in _saved_by(work, decision.target_step)), default=-1)


def _parent(work: Work, decision: Decision) -> CheckpointRef | None:
    """The checkpoint that a snapshot continues, which the next one then does, too."""
    saved = _saved_by(work, decision.target_step) if decision.snapshot is not None else []
    return max(saved, key=lambda ref: ref.step, default=None)


def _saved_by(work: Work, step: int) -> list[CheckpointRef]:
    return [ref for ref in sources(work.job) if ref.step <= step]


def _roll_back(work: Work, settled: Settled, decision: Decision) -> None:
    """Work was lost: its time was not productive after all, and the figures go back to where training goes on."""
    progress = work.job.progress
    step_s = typical_step_s(progress.recent_step_s) or 0.0
    lost_s = max(0, settled.step - decision.target_step) * step_s
    work.set_job(goodput=move(work.job.goodput, Bucket.PRODUCTIVE, Bucket.RECOMPUTE, lost_s, work.now_s))
    missed = step_ranges.up_to(progress.missed, decision.target_step)
    uncounted = step_ranges.count(progress.missed) - step_ranges.count(missed)
    known_lost = max(0, progress.step - decision.target_step - uncounted)
    tokens = max(0, progress.tokens - known_lost * progress.step_tokens)
    step = min(progress.step, decision.target_step)
    progress = replace(progress, step=step, tokens=tokens, skipped=min(progress.skipped, step), missed=missed)
    if progress.eval_step > decision.target_step:
        progress = replace(progress, eval_loss=None, eval_step=0)
    work.set_job(progress=progress)


def _adopt(work: Work, proposal: Proposal, record: GenerationRecord, decision: Decision) -> None:
    phase = advance(Machine.GENERATION, work.island.generation_phase, GenerationPhase.COMMITTED)
    previous = work.island.record
    work.set_island(
        generation_phase=phase,
        record=record,
        proposal=None,
        evidence=None,
        entered=False,
        committed_s=work.now_s,
        hold=Hold.NONE,
    )
    work.set_job(rollback=None)
    _let_go(work, previous, record)
    for index in proposal.slots:
        if work.slot(index).state is not SlotState.ACTIVE:
            work.move_slot(index, SlotState.ACTIVE)
    if work.island.marks is not None:
        work.set_island(marks=replace(work.island.marks, committed_s=work.now_s))
    update_recovery(
        work,
        generation=record.generation,
        rung=record.rung.value,
        reason=record.reason,
        candidates=tuple(c.as_record() for c in decision.candidates),
        target_step=record.target_step,
        lost_steps=decision.lost_steps,
    )
    if record.lineage != work.job.progress.lineage:
        work.set_job(progress=replace(work.job.progress, lineage=record.lineage))
    work.job = attempt_restoring(work.job)
    _note_degraded(work, record)
    _tell(work, proposal, record, decision)


def _let_go(work: Work, previous: GenerationRecord | None, record: GenerationRecord) -> None:
    """Members of the generation before that are none of this one have been replaced or are no longer wanted."""
    kept = {m.slot for m in record.members}
    for member in previous.members if previous is not None else ():
        slot = work.slot(member.slot)
        if member.slot not in kept and slot.alive and slot.incarnation == member.incarnation:
            work.move_slot(slot.index, SlotState.DRAINING, reason=f"left in generation {record.generation}")


def _note_degraded(work: Work, record: GenerationRecord) -> None:
    wanted, size = work.target_groups * work.per_node, record.world_size
    message = f"{size} of {format_count(wanted, 'worker')} at work; the rest joins when a node has free slots"
    reason = f"Workers{size}"
    work.job = with_condition(work.job, DEGRADED, size < wanted, work.now_s, reason=reason, message=message)


def _tell(work: Work, proposal: Proposal, record: GenerationRecord, decision: Decision) -> None:
    if proposal.cause is not Cause.START:
        costs = "; ".join(
            f"{c.rung.value} {c.cost_s:.2f} s" if c.eligible else f"{c.rung.value} not possible: {c.reason}"
            for c in decision.candidates
        )
        weighed = f"{record.rung.value}: {decision.reason}" + (f" ({costs})" if costs else "")
        work.emit(events.RECOVERY_DECIDED, record.rung.value.capitalize(), weighed)
    workers = format_count(record.world_size, "worker")
    how = f"{workers} to go on after step {record.target_step} (lineage {record.lineage}, {record.rung.value}): "
    how = "" if work.job.spec.spec.runs_command else how
    message = f"generation {record.generation} of {record.island}: {how}{record.reason}"
    details = {"generation": record.generation, "rung": record.rung.value, "target_step": record.target_step}
    work.emit(events.GENERATION_COMMITTED, proposal.cause.value.capitalize(), message, **details)
