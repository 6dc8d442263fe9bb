"""What the reports of stopped workers prove, one rule at a time.

Without it a vote that was cast could be undone, or applied twice, by a recovery.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.reconcile.evidence import newest_vote, schema_conflict, settle, starters
from trainctl.core.records.step import Outcome, StepAction, StepReport
from unit.generation_records import generation_record

RECORD = generation_record(4, lineage=2, target_step=10)


def vote(step: int, *, generation: int = 4, lineage: int = 2) -> Outcome:
    return Outcome(
        generation=generation, lineage=lineage, step=step, action=StepAction.APPLY, gradient_scale=1.0,
        learning_rate=0.1, loss_sum=1.0, tokens=1, gradient_norm=1.0, cursor=step, sample_digest=0,
    )  # fmt: skip


def report(applied: int, **fields: object) -> StepReport:
    return replace(StepReport(prepared_generation=5, lineage=2, applied_step=applied), **fields)  # type: ignore[arg-type]


def able(step: int, *, generation: int = 4) -> StepReport:
    """Of a worker that can still apply a step: it has the step before, and the gradient."""
    return report(step - 1, voted=vote(step), retained_step=step, retained_generation=generation)


def test_a_vote_beyond_the_target_counts_and_whoever_can_apply_it_holds_it() -> None:
    found = settle(RECORD, None, {0: able(11), 1: able(11)})
    assert (found.lineage, found.step, found.outcome, found.holders) == (2, 11, vote(11), (0, 1))
    assert found.pending


def test_a_state_beyond_the_target_proves_its_vote() -> None:
    found = settle(RECORD, None, {0: report(11), 1: report(10)})
    assert (found.step, found.outcome, found.holders, found.pending) == (11, None, (0,), False)


def test_who_applied_the_vote_holds_it_beside_those_who_still_can() -> None:
    found = settle(RECORD, None, {0: report(11, voted=vote(11)), 2: able(11), 1: report(10, voted=vote(11))})
    assert (found.step, found.holders, found.pending) == (11, (0, 2), True)


def test_what_was_accepted_before_counts_without_its_voters() -> None:
    found = settle(RECORD, vote(12), {0: report(10)})
    assert (found.step, found.outcome, found.holders) == (12, vote(12), ())


def test_the_target_stands_where_nobody_voted() -> None:
    found = settle(replace(RECORD, outcome=vote(10, generation=3)), None, {0: report(10), 1: report(9)})
    assert (found.step, found.outcome, found.holders, found.pending) == (10, vote(10, generation=3), (0,), False)


def test_the_records_own_vote_can_still_be_applied() -> None:
    late = report(9, retained_step=10, retained_generation=3)
    found = settle(replace(RECORD, outcome=vote(10, generation=3)), None, {0: report(10), 1: late})
    assert (found.holders, found.pending) == ((0, 1), True)


@pytest.mark.parametrize(
    "other",
    [
        report(-1),
        report(12, lineage=1),
        able(11, generation=3),
        report(9, voted=vote(11), retained_step=11, retained_generation=4),
        report(10, voted=vote(11), retained_step=10, retained_generation=4),
    ],
)
def test_who_cannot_stand_on_the_step_is_an_empty_joiner(other: StepReport) -> None:
    found = settle(RECORD, None, {0: able(11), 1: other})
    assert (found.step, found.holders) == (11, (0,))


def test_the_initial_state_is_held_by_those_that_have_it() -> None:
    assert settle(replace(RECORD, target_step=0), None, {0: report(0), 1: report(-1)}).holders == (0,)


@pytest.mark.parametrize("old", [vote(11, generation=3), vote(10), vote(11, lineage=1)])
def test_votes_that_the_record_settled_do_not_count(old: Outcome) -> None:
    assert newest_vote(RECORD, None, report(10, voted=old)) is None
    assert newest_vote(RECORD, vote(11), report(10, voted=old)) == vote(11)


def test_the_newest_vote_counts_and_an_equal_one_changes_nothing() -> None:
    known = vote(11)
    assert newest_vote(RECORD, known, report(11, voted=vote(12))) == vote(12)
    assert newest_vote(RECORD, vote(12), report(11, voted=vote(11))) == vote(12)
    assert newest_vote(RECORD, known, report(11, voted=vote(11, generation=5))) is known
    assert newest_vote(RECORD, known, report(11)) is known
    assert newest_vote(None, known, report(11, voted=vote(12))) is known


def test_others_start_from_those_that_have_not_trained_if_there_are_others() -> None:
    new, used = report(0, pristine=True), report(3)
    assert starters({2: new, 0: new, 1: used}) == (0, 2)
    assert starters({0: new, 1: new}) == ()
    assert starters({0: used}) == ()


def test_different_models_are_named_with_their_workers() -> None:
    one, other = report(0, schema_digest="a" * 20), report(0, schema_digest="b" * 20)
    assert schema_conflict([(0, one), (1, one), (2, report(0))]) == ""
    found = schema_conflict([(0, one), (1, other), (2, one)])
    assert f"{'a' * 12} on worker 0, 2; {'b' * 12} on worker 1" in found
