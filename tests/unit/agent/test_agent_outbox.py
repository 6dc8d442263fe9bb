"""Without it a controller that was away would miss reports or count them twice, and come back to a rush of agents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainctl.agent.backoff import Backoff
from trainctl.agent.outbox import MAX_BATCH, FiguresOutbox, ReportsOutbox
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport


def figures(*steps: int) -> list[StepFigures]:
    return [
        StepFigures(
            step=step, generation=1, lineage=0, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens=8, cursor=4,
            sample_digest=1, step_s=0.1, vote_s=0.0, reduce_s=0.0, wall_s=1.0,
        )
        for step in steps
    ]  # fmt: skip


def report(step: int) -> CheckpointReport:
    return CheckpointReport(job_uid="u", island="i", generation=1, step=step, lineage=0)


def drain(outbox: FiguresOutbox) -> list[tuple[int, list[int]]]:
    taken = []
    while (batch := outbox.take()) is not None:
        taken.append((batch.sequence, [each.step for each in batch.figures]))
    return taken


def test_figures_join_until_they_are_sent() -> None:
    outbox = FiguresOutbox()
    outbox.add("a", figures(1))
    outbox.add("a", figures(2, 3))
    assert drain(outbox) == [(1, [1, 2, 3])]
    outbox.add("a", figures(4))
    outbox.add("b", figures(1))
    assert drain(outbox) == [(2, [4]), (3, [1])]
    assert drain(outbox) == []


def test_what_is_not_acknowledged_is_sent_again() -> None:
    outbox = FiguresOutbox()
    outbox.add("a", figures(1))
    drain(outbox)
    outbox.add("a", figures(2))
    drain(outbox)
    outbox.acknowledge(1)
    assert outbox.pending == 1
    outbox.rewind()
    assert drain(outbox) == [(2, [2])]
    outbox.acknowledge(2)
    assert outbox.pending == 0
    outbox.rewind()
    outbox.add("a", figures(3))
    assert drain(outbox) == [(3, [3])]


def test_an_acknowledgement_of_what_was_not_sent_drops_nothing() -> None:
    outbox = FiguresOutbox()
    outbox.add("a", figures(1))
    outbox.acknowledge(99)
    assert drain(outbox) == [(1, [1])]


def test_batches_are_bounded_and_the_oldest_are_dropped() -> None:
    outbox = FiguresOutbox(limit=2 * MAX_BATCH)
    outbox.add("a", figures(*range(3 * MAX_BATCH)))
    assert outbox.dropped == MAX_BATCH
    assert outbox.pending == 2 * MAX_BATCH
    assert [sequence for sequence, _ in drain(outbox)] == [2, 3]


def test_a_report_says_how_old_it_is_whenever_it_is_sent() -> None:
    now_s = [100.0]
    outbox = ReportsOutbox(lambda: now_s[0])
    outbox.add(report(1))
    now_s[0] = 100.5
    first = outbox.take(1)
    assert isinstance(first, CheckpointReport)
    assert first.age_s == 0.5
    now_s[0] = 400.0
    outbox.rewind()
    again = outbox.take(2)
    assert isinstance(again, CheckpointReport)
    assert (again.step, again.age_s) == (1, 300.0)


@given(st.lists(st.sampled_from(["add", "take", "ack", "rewind"]), max_size=60))
def test_nothing_is_lost_and_the_order_holds(operations: list[str]) -> None:
    outbox = FiguresOutbox()
    step, received, newest = 0, [], 0
    for operation in [*operations, "rewind", *["take"] * 70]:
        if operation == "add":
            step += 1
            outbox.add("ab"[step % 2], figures(step))
        elif operation == "take" and (batch := outbox.take()) is not None:
            newest = batch.sequence
            received += [each.step for each in batch.figures]
        elif operation == "ack":
            outbox.acknowledge(newest)
        elif operation == "rewind":
            outbox.rewind()
    assert list(dict.fromkeys(received)) == list(range(1, step + 1))


def test_reports_stay_until_a_later_observation_is_acknowledged() -> None:
    outbox = ReportsOutbox(lambda: 0.0)
    outbox.add(report(1))
    assert outbox.take(5) == report(1)
    assert outbox.take(5) is None
    outbox.acknowledge(4)
    outbox.rewind()
    assert outbox.take(6) == report(1)
    outbox.add(report(2))
    outbox.acknowledge(6)
    assert len(outbox) == 1
    assert outbox.take(7) == report(2)


def test_backoff_stays_in_its_bounds_and_starts_again() -> None:
    backoff = Backoff(base_s=0.1, cap_s=2.0)
    pauses_s = [backoff.next_s() for _ in range(200)]
    assert all(0.1 <= pause_s <= 2.0 for pause_s in pauses_s)
    assert max(pauses_s) == 2.0
    backoff.reset()
    assert backoff.next_s() <= 0.3


def test_who_is_asked_to_wait_waits_so_long_once_and_not_in_step_with_others() -> None:
    pauses = set()
    for _ in range(20):
        backoff = Backoff(base_s=0.1, cap_s=2.0)
        backoff.wait_at_least(5.0)
        pauses.add(pause_s := backoff.next_s())
        assert 5.0 <= pause_s <= 7.5
        assert backoff.next_s() <= 2.0
    assert len(pauses) > 10
