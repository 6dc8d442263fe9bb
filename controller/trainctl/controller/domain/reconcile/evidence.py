"""What the reports of stopped workers prove: which step is the last voted one, and who can stand on it.

Rules (design 5): a vote counts if its generation is that of the last committed record or newer and its step lies beyond
the record's target; older votes were settled by the record. A state applied beyond the target proves its vote. A worker
holds the target if it applied it, or applied the step before and retains the target's gradient from the vote's own
generation. Everybody else is an empty joiner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trainctl.controller.domain.ancestry import Ancestor, descends
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef
from trainctl.core.records.step import Outcome, StepReport

InMemory: TypeAlias = tuple[tuple[SnapshotRef, Mapping[str, SnapshotHeld]], ...]
"""Snapshots, oldest first, and what each node has of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The step to stand on.

    Attributes:
        lineage: its lineage.
        step: the target.
        outcome: its vote; None where none was seen (the initial state, a loaded checkpoint).
        holders: slots that hold it, or will once they applied ``outcome``.
        pending: some holder still has to apply ``outcome``.
    """

    lineage: int
    step: int
    outcome: Outcome | None
    holders: tuple[int, ...]
    pending: bool


def newest_vote(record: GenerationRecord | None, known: Outcome | None, report: StepReport) -> Outcome | None:
    """The newest vote beyond the record's target, of what is known already and one more report."""
    vote = report.voted
    if record is None or vote is None or vote.lineage != record.lineage:
        return known
    if vote.generation < record.generation or vote.step <= record.target_step:
        return known
    return vote if known is None or vote.step > known.step else known


def settle(record: GenerationRecord, evidence: Outcome | None, reports: Mapping[int, StepReport]) -> Settled:
    """The target step that the record, accepted evidence and the members' reports (by slot) lead to."""
    ours = {slot: r for slot, r in reports.items() if r.applied_step >= 0 and r.lineage == record.lineage}
    for report in ours.values():
        evidence = newest_vote(record, evidence, report)
    applied = max((r.applied_step for r in ours.values()), default=-1)
    voted = evidence.step if evidence is not None else -1
    step = max(record.target_step, applied, voted)
    outcome = _outcome_of(step, record, evidence)
    whole = {slot for slot, r in ours.items() if r.applied_step == step}
    open_ = {slot for slot, r in ours.items() if _can_apply(r, step, outcome)}
    return Settled(
        lineage=record.lineage,
        step=step,
        outcome=outcome,
        holders=tuple(sorted(whole | open_)),
        pending=bool(open_),
    )


def _outcome_of(step: int, record: GenerationRecord, evidence: Outcome | None) -> Outcome | None:
    for outcome in (evidence, record.outcome):
        if outcome is not None and outcome.step == step and outcome.lineage == record.lineage:
            return outcome
    return None


def _can_apply(report: StepReport, step: int, outcome: Outcome | None) -> bool:
    return (
        outcome is not None
        and report.applied_step == step - 1
        and report.retained_step == step
        and report.retained_generation == outcome.generation
    )


def starters(reports: Mapping[int, StepReport]) -> tuple[int, ...]:
    """Slots that the others get the initial state from; empty where everybody makes it, or nobody can."""
    pristine = tuple(sorted(slot for slot, report in reports.items() if report.pristine))
    return pristine if len(pristine) < len(reports) else ()


def snapshots_in_memory(
    reports: Iterable[tuple[str, StepReport]],
    *,
    lineage: int,
    ancestors: Sequence[Ancestor],
    lost: Collection[str],
) -> InMemory:
    """Snapshots that going on may begin with, oldest first, and what each node has of them.

    Args:
        reports: of the members, by node.
        lineage: the surviving one.
        ancestors: those that it descends from.
        lost: attempts that could not be loaded.
    """
    found: dict[SnapshotRef, dict[str, SnapshotHeld]] = {}
    for node, report in reports:
        for held in report.snapshots:
            ref = held.snapshot
            ours = descends(ancestors, lineage, lineage=ref.lineage, step=ref.step)
            if ours and ref.attempt not in lost:
                found.setdefault(ref, {})[node] = held
    return tuple((ref, found[ref]) for ref in sorted(found, key=lambda ref: (ref.step, ref.lineage)))


def schema_conflict(reports: Iterable[tuple[int, StepReport]]) -> str:
    """The sentence that says which workers built different models; empty if all agree."""
    by_digest: dict[str, list[int]] = {}
    for slot, report in reports:
        if report.schema_digest:
            by_digest.setdefault(report.schema_digest, []).append(slot)
    if len(by_digest) < 2:
        return ""
    parts = (f"{digest[:12]} on worker {', '.join(map(str, slots))}" for digest, slots in sorted(by_digest.items()))
    return "workers built states with different names, dtypes or shapes: " + "; ".join(parts)
