"""Without it a state could be left in which a job hangs, lost time be counted as good, or old state win over newer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import Layout
from trainctl.controller.domain import goodput
from trainctl.controller.domain.ancestry import descends, gone_back
from trainctl.controller.domain.goodput import Bucket
from trainctl.controller.domain.hang import frozen, frozen_limit_s, typical_step_s
from trainctl.controller.domain.island_layout import checkpoint_layout, island_layout, snapshot_layout
from trainctl.controller.domain.placement import place_groups, usable_agents
from trainctl.controller.domain.reconcile.evidence import schema_conflict, settle, snapshots_in_memory, starters
from trainctl.controller.domain.recovery import Costs, Givers, Situation, choose_recovery
from trainctl.controller.domain.states import TRANSITIONS, JobPhase, Machine, UnknownTransitionError, advance, mermaid
from trainctl.controller.domain.view import AgentView
from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef
from trainctl.core.records.spec import ResourcesSpec
from trainctl.core.records.step import Outcome, Phase, StepReport
from trainctl.core.records.train_spec import TrainSpec
from trainctl.core.records.worker import Progress
from trainctl.core.timeouts import PROFILES
from unit.domain.domain_sim_nodes import outcome_of
from unit.domain.sample_reports import ref_of
from unit.generation_records import generation_record


@pytest.mark.parametrize("machine", list(Machine))
def test_tables_are_closed_reachable_and_drawn(machine: Machine) -> None:
    table = TRANSITIONS[machine]
    targets = {t for row in table.values() for t in row}
    assert targets <= set(table)
    assert targets | {next(iter(table))} == set(table)
    drawing = mermaid(machine)
    assert all(f"{a} --> {b}" in drawing for a, row in table.items() for b in row)
    assert {a for a in table if f"{a} --> [*]" in drawing} == {a for a, row in table.items() if not row}


def test_only_arrows_of_the_table_are_walked() -> None:
    assert advance(Machine.JOB, JobPhase.RUNNING, JobPhase.RECOVERING) is JobPhase.RECOVERING
    with pytest.raises(UnknownTransitionError, match="terminal"):
        advance(Machine.JOB, JobPhase.SUCCEEDED, JobPhase.RUNNING)


TWO = ResourcesSpec(workers_per_node=2)


def agents(*free: int) -> tuple[tuple[AgentView, ...], dict[int, int]]:
    views = tuple(AgentView(node=f"node-{i}", agent_incarnation=i + 1, slots=n) for i, n in enumerate(free))
    return views, {i + 1: n for i, n in enumerate(free)}


def test_groups_of_slots_are_placed_whole_or_not_at_all() -> None:
    views, free = agents(2, 1, 2, 4)
    usable = usable_agents(reversed(views), free, resources=TWO, timeouts=PROFILES["fast"])
    assert [a.node for a in usable] == ["node-0", "node-2", "node-3"]
    placed = place_groups([0, 1], usable, at_least=2, resources=TWO)
    assert {g: a.node for g, a in placed.agents.items()} == {0: "node-0", 1: "node-2"}
    refused = place_groups([0, 1, 2, 3], usable, at_least=4, resources=TWO)
    assert not refused.agents
    assert "needs 4 nodes with 2 free worker slots each, found 3" in refused.reason
    silent = [replace(a, last_heard_age_s=9.0) for a in views]
    assert not usable_agents(silent, free, resources=TWO, timeouts=PROFILES["fast"])


def test_a_job_with_accelerators_goes_where_there_are_some_and_says_so() -> None:
    views, free = agents(2, 2)
    with_gpu = (views[0], replace(views[1], device="cuda"))
    wants = replace(TWO, accelerators_per_node=2)
    assert [a.node for a in usable_agents(with_gpu, free, resources=wants, timeouts=PROFILES["fast"])] == ["node-1"]
    refused = place_groups(
        [0], usable_agents(views, free, resources=wants, timeouts=PROFILES["fast"]), at_least=1, resources=wants
    )
    assert refused.reason == "needs 1 node with 2 free worker slots with an accelerator each, found 0"


def test_frozen_is_judged_by_the_step_time_and_the_phase() -> None:
    fast = PROFILES["fast"]
    assert typical_step_s((1.0, 2.0)) is None
    assert typical_step_s((9.0, 1.0, 2.0)) == 2.0
    assert frozen_limit_s(Phase.COMPUTE, 0.3, fast) == fast.hang_floor_s
    assert frozen_limit_s(Phase.COMPUTE, 4.0, fast) == 12.0
    assert frozen_limit_s(Phase.CHECKPOINT, 0.3, fast) == fast.collective_s
    assert frozen_limit_s(Phase.COMPUTE, None, fast) == fast.collective_s
    assert frozen_limit_s(Phase.READY, 0.3, fast) is None
    assert not frozen(Progress(phase=Phase.VOTE, alive_age_s=2.9, phase_age_s=100.0), 0.3, fast)
    assert "no sign of life for 3.1 s in phase vote of step 8" in frozen(
        Progress(phase=Phase.VOTE, step=7, alive_age_s=3.1), 0.3, fast
    )


moves = st.lists(
    st.tuples(
        st.floats(0, 1e6),
        st.sampled_from(list(Bucket)),
        st.floats(0, 1),
        st.sampled_from(list(Bucket)),
        st.floats(0, 1e6),
    )
)


@given(st.floats(1e9, 2e9), moves)
def test_every_microsecond_is_in_exactly_one_bucket(
    start_s: float, steps: list[tuple[float, Bucket, float, Bucket, float]]
) -> None:
    account, now_s = goodput.open_account(start_s), start_s
    for elapsed_s, bucket, degraded, source, amount_s in steps:
        now_s += elapsed_s
        account = goodput.switch(account, bucket, now_s, degraded=degraded)
        account = goodput.move(account, source, Bucket.RECOMPUTE, amount_s, now_s)
        assert goodput.total_us(account, now_s) == goodput.microseconds(now_s) - account.start_us
        assert all(value >= 0 for value in goodput.totals_s(account, now_s).values())
    assert sum(goodput.totals_s(account, now_s + 5).values()) == pytest.approx(now_s + 5 - start_s, abs=1e-3)


def test_the_words_for_time_are_those_that_are_stored_and_scraped() -> None:
    said = (
        "queued placing checking rendezvous restoring recompute productive checkpoint_stall degraded_loss hang draining"
    )
    assert [bucket.value for bucket in Bucket] == [*said.split(), "paused"]


def test_time_that_was_rolled_back_counts_as_lost() -> None:
    account = goodput.switch(goodput.open_account(0.0), Bucket.PRODUCTIVE, 10.0, degraded=0.5)
    account = goodput.move(account, Bucket.PRODUCTIVE, Bucket.RECOMPUTE, 3.0, 20.0)
    seconds = goodput.totals_s(account, 20.0)
    assert (seconds["queued"], seconds["productive"], seconds["degraded_loss"]) == (10.0, 2.0, 5.0)
    assert account.lost_us == 3_000_000
    assert goodput.ettr(account, 20.0) == pytest.approx(0.2)


TRAIN = TrainSpec()
REF = ref_of(90)


def situation(
    *, holders: tuple[int, ...], ranks: int = 4, saved: bool = True, short: int = 0, initial: bool = False
) -> Situation:
    version = StateVersion(1, 100)
    return Situation(
        target_step=100,
        initial=initial,
        wanted=island_layout("i", TRAIN, version, range(ranks)),
        live=island_layout("i", TRAIN, version, holders),
        snapshots=(),
        checkpoints=((REF, checkpoint_layout("i", TRAIN, REF)),) if saved else (),
        resume=None,
        joiners=ranks - len(holders),
        replaced=ranks - len(holders),
        short=short,
        grown=0,
        costs=Costs(step_s=0.5, state_bytes=10**6),
    )


def test_the_ladder_prefers_live_state_then_the_checkpoint_then_the_beginning() -> None:
    peer = choose_recovery(situation(holders=(0, 2)))
    assert (peer.rung, peer.target_step, peer.lost_steps) == (Rung.PEER, 100, 0)
    rolled = choose_recovery(situation(holders=()))
    assert (rolled.rung, rolled.target_step, rolled.lost_steps, rolled.checkpoint) == (Rung.CHECKPOINT, 90, 10, REF)
    again = choose_recovery(situation(holders=(), saved=False))
    assert (again.rung, again.target_step, again.lost_steps) == (Rung.START, 0, 100)
    first = choose_recovery(situation(holders=(), saved=False, initial=True))
    assert (first.rung, first.lost_steps) == (Rung.START, 0)
    small = choose_recovery(situation(holders=(0, 1), ranks=2, short=2))
    assert small.rung is Rung.SHRINK
    assert "no replacement in time for 2 slots" in small.reason


def test_who_gives_the_state_to_the_others_and_whether_it_is_an_earlier_one() -> None:
    resumed = replace(situation(holders=(), saved=False, initial=True), resume=REF)
    found = [situation(holders=(0, 2)), situation(holders=()), situation(holders=(), saved=False), resumed]
    assert [(d.goes_back, d.givers) for d in map(choose_recovery, found)] == [
        (False, Givers.HOLDERS),
        (True, Givers.NOBODY),
        (True, Givers.STARTERS),
        (True, Givers.NOBODY),
    ]


def test_a_range_that_nobody_holds_makes_the_peer_rung_impossible_by_name() -> None:
    base = situation(holders=(0,))
    (holder,) = base.live.holders
    part = {key: regions for key, regions in base.live.holders[holder].items() if key.kind != "exp_avg"}
    decision = choose_recovery(replace(base, live=Layout(base.live.shapes, {holder: part})))
    assert decision.rung is Rung.CHECKPOINT
    peer = next(c for c in decision.candidates if c.rung is Rung.PEER)
    assert not peer.eligible
    assert "exp_avg of island" in peer.reason
    assert {m.dst_key.kind for m in peer.missing} == {"exp_avg"}


def snap(step: int, parts: int = 2, *, lineage: int = 1, **nodes: tuple[int, ...]) -> tuple[SnapshotRef, Layout]:
    """A snapshot of which each node has some parts."""
    ref = SnapshotRef(lineage=lineage, step=step, attempt=f"{step:016x}")
    held = {node: SnapshotHeld(snapshot=ref, parts=parts, held=own) for node, own in nodes.items()}
    return ref, snapshot_layout("i", TRAIN, held)


def test_a_snapshot_costs_less_than_an_older_checkpoint() -> None:
    newest = snap(97, a=(0,), b=(1,))
    decision = choose_recovery(replace(situation(holders=()), snapshots=(snap(95, a=(0, 1)), newest)))
    assert (decision.rung, decision.target_step, decision.lost_steps) == (Rung.SNAPSHOT, 97, 3)
    assert decision.snapshot == newest[0]
    assert decision.checkpoint is None
    assert decision.reason == "the memory of 2 nodes holds step 97; redo 3 steps"
    assert decision.goes_back


def test_a_snapshot_with_a_gap_is_passed_over_for_an_older_one() -> None:
    whole, gap = snap(95, a=(0, 1)), snap(97, a=(0,), b=(0,))
    assert choose_recovery(replace(situation(holders=()), snapshots=(whole, gap))).target_step == 95
    decision = choose_recovery(replace(situation(holders=()), snapshots=(gap,)))
    assert (decision.rung, decision.target_step) == (Rung.CHECKPOINT, 90)
    (refused,) = [c for c in decision.candidates if c.rung is Rung.SNAPSHOT]
    assert not refused.eligible
    assert {m.dst_key.kind for m in refused.missing} == {"param", "exp_avg", "exp_avg_sq"}
    assert "not in the memory of any node" in refused.reason


def test_a_checkpoint_that_is_as_new_is_left_to_the_costs() -> None:
    """Memory is faster than storage; where it went further than the checkpoint, there is less to repeat as well."""
    same = choose_recovery(replace(situation(holders=()), snapshots=(snap(90, a=(0, 1)),)))
    assert (same.rung, same.target_step) == (Rung.SNAPSHOT, 90)
    older = choose_recovery(replace(situation(holders=()), snapshots=(snap(40, a=(0, 1)),)))
    assert (older.rung, older.target_step) == (Rung.CHECKPOINT, 90)


def test_the_tiers_of_snapshots_cost_more_from_memory_to_a_buddys_to_disk_to_storage() -> None:
    """All of the same step: what differs is where the bytes come from."""
    base = replace(situation(holders=()), costs=Costs(state_bytes=10**10), nodes=("a", "a", "b", "b"))
    whole, half = (snap(90, a=(0, 1), b=(0, 1)),), (snap(90, a=(0, 1)),)

    def cost_s(**given: Any) -> float:
        decision = choose_recovery(replace(base, **given))
        assert (decision.rung, decision.target_step) == (Rung.SNAPSHOT, 90)
        return next(c.cost_s for c in decision.candidates if c.rung is Rung.SNAPSHOT)

    storage_s = next(c.cost_s for c in choose_recovery(base).candidates if c.rung is Rung.CHECKPOINT)
    memory_s, buddy_s = cost_s(snapshots=whole), cost_s(snapshots=half)
    disk_s, others_disk_s = cost_s(snapshots=whole, on_disk=True), cost_s(snapshots=half, on_disk=True)
    assert memory_s < buddy_s < disk_s < others_disk_s < storage_s
    fetch_s = 10**10 / 1e9 / 2  # two of four members
    assert [buddy_s - memory_s, others_disk_s - disk_s] == pytest.approx([fetch_s, fetch_s])


@pytest.mark.parametrize(
    ("step", "step_s", "on_disk", "rung"),
    [
        (95, 0.5, False, Rung.SNAPSHOT),  # newer and nearer
        (95, 0.5, True, Rung.SNAPSHOT),
        (85, 0.5, True, Rung.SNAPSHOT),  # older, but five steps cost less than to load so much from storage
        (85, 10.0, False, Rung.CHECKPOINT),  # older, and steps are dear
        (85, 10.0, True, Rung.CHECKPOINT),
    ],
)
def test_between_a_snapshot_and_a_checkpoint_the_whole_cost_decides(
    step: int, step_s: float, on_disk: bool, rung: Rung
) -> None:
    costs = Costs(step_s=step_s, state_bytes=10**10)
    base = replace(situation(holders=()), costs=costs, on_disk=on_disk, nodes=("a",) * 4)
    decision = choose_recovery(replace(base, snapshots=(snap(step, a=(0, 1)),)))
    assert decision.rung is rung
    cost = {c.rung: c.cost_s for c in decision.candidates if c.eligible}
    assert min(cost, key=lambda one: cost[one]) is rung


def test_the_reason_names_the_tier_and_who_fetches_first() -> None:
    base = replace(situation(holders=()), on_disk=True, nodes=("a", "a", "c", "d"))
    decision = choose_recovery(replace(base, snapshots=(snap(97, a=(0,), b=(1,)),)))
    assert decision.reason == "disks of 2 nodes hold step 97, 2 members of 4 get it from there first; redo 3 steps"
    (no,) = [c.reason for c in choose_recovery(base).candidates if c.rung is Rung.SNAPSHOT]
    assert no == "no snapshot is on the disks of the nodes"


def test_what_is_repeated_and_who_has_to_boot_cost_time() -> None:
    def costs(base: Situation, step_s: float, boot_s: float) -> dict[Rung, float]:
        changed = replace(base, costs=replace(base.costs, step_s=step_s, boot_s=boot_s))
        return {c.rung: c.cost_s for c in choose_recovery(changed).candidates if c.eligible}

    lost = situation(holders=(), saved=False)
    slow, slower = costs(lost, 0.5, 9.0), costs(lost, 1.5, 9.0)
    assert slower[Rung.START] - slow[Rung.START] == pytest.approx(100 * 1.0)
    snapshot = replace(situation(holders=()), snapshots=(snap(100, a=(0, 1)),), nodes=("a",) * 4)
    kept, booted = replace(snapshot, replaced=0), replace(snapshot, replaced=4)
    assert [costs(one, 0.5, 9.0)[Rung.SNAPSHOT] - costs(one, 0.5, 2.0)[Rung.SNAPSHOT] for one in (kept, booted)] == [
        pytest.approx(0.0),
        pytest.approx(7.0),
    ]


def test_nothing_starts_again_where_there_is_a_snapshot() -> None:
    cheap = replace(situation(holders=(), saved=False), snapshots=(snap(3, a=(0, 1)),))
    decision = choose_recovery(replace(cheap, costs=Costs(step_s=1e-9, state_bytes=10**15)))
    assert (decision.rung, decision.target_step) == (Rung.SNAPSHOT, 3)


def test_a_whole_live_worker_is_preferred_to_a_snapshot() -> None:
    base = replace(situation(holders=(0,)), snapshots=(snap(100, a=(0, 1)),))
    assert choose_recovery(base).rung is Rung.PEER


def test_only_snapshots_of_what_survived_are_sources() -> None:
    def report(*held: SnapshotHeld) -> StepReport:
        return StepReport(prepared_generation=2, lineage=1, applied_step=-1, snapshots=held)

    def held(lineage: int, step: int, *parts: int) -> SnapshotHeld:
        ref = SnapshotRef(lineage=lineage, step=step, attempt=f"{lineage}-{step}")
        return SnapshotHeld(snapshot=ref, parts=3, held=parts)

    a, b = held(2, 8, 0, 1), held(2, 8, 1, 2)
    older, left, foreign = held(1, 6, 0, 1, 2), held(1, 9, 0, 1, 2), held(0, 6, 0, 1, 2)
    found = snapshots_in_memory(
        [("a", report(a, older, left, foreign)), ("b", report(b, held(2, 10, 0, 1, 2))), ("a", report(a))],
        lineage=2,
        ancestors=gone_back((), lineage=1, step=7),
        lost=["2-10"],
    )
    assert found == ((older.snapshot, {"a": older}), (a.snapshot, {"a": a, "b": b}))


def test_a_lineage_descends_from_those_before_it_only_as_far_as_they_were_gone_back_to() -> None:
    ancestors = gone_back(gone_back(gone_back((), lineage=1, step=40), lineage=2, step=60), lineage=3, step=30)
    assert [(one.lineage, one.step) for one in ancestors] == [(1, 30), (2, 30), (3, 30)]
    ancestors = gone_back(ancestors, lineage=4, step=50)

    def ours(lineage: int, step: int) -> bool:
        return descends(ancestors, 5, lineage=lineage, step=step)

    assert ours(5, 1000)
    assert ours(4, 50)
    assert not ours(4, 51)
    assert all(ours(lineage, 30) and not ours(lineage, 31) for lineage in (1, 2, 3))
    assert not ours(6, 1)


def test_every_rung_says_why() -> None:
    decision = choose_recovery(situation(holders=(0,)))
    assert all(c.reason for c in decision.candidates)
    cost = {c.rung: c.cost_s for c in decision.candidates if c.eligible}
    assert cost[Rung.CHECKPOINT] - cost[Rung.PEER] == pytest.approx(5.0, abs=0.1)


def committed(target: int, outcome: Outcome | None = None, generation: int = 3, lineage: int = 1) -> GenerationRecord:
    return generation_record(generation, lineage=lineage, target_step=target, outcome=outcome)


def report(
    applied: int, *, voted: Outcome | None = None, retained: tuple[int, int] = (0, 0), lineage: int = 1
) -> StepReport:
    return StepReport(
        prepared_generation=4, lineage=lineage, applied_step=applied, voted=voted,
        retained_generation=retained[0], retained_step=retained[1],
    )  # fmt: skip


def test_nobody_saw_the_vote_so_the_open_step_is_discarded() -> None:
    found = settle(committed(5), None, {0: report(9, retained=(3, 10)), 1: report(9), 2: report(-1)})
    assert (found.step, found.holders, found.pending) == (9, (0, 1), False)


def test_one_saw_the_vote_so_everybody_who_can_applies_it() -> None:
    vote = outcome_of(3, 1, 10)
    reports = {0: report(10, voted=vote), 1: report(9, retained=(3, 10)), 2: report(9, retained=(2, 10)), 3: report(9)}
    found = settle(committed(5), None, reports)
    assert (found.step, found.outcome, found.holders, found.pending) == (10, vote, (0, 1), True)


def test_a_vote_of_a_generation_that_was_settled_already_does_not_count() -> None:
    old = outcome_of(2, 1, 10)
    found = settle(committed(9), None, {0: report(9, voted=old, retained=(2, 10))})
    assert (found.step, found.outcome) == (9, None)


def test_a_second_failure_inherits_the_decision() -> None:
    vote = outcome_of(2, 1, 10)
    reports = {0: report(10), 1: report(9, retained=(2, 10)), 2: report(9, retained=(3, 10))}
    found = settle(committed(10, outcome=vote), None, reports)
    assert (found.step, found.outcome, found.holders) == (10, vote, (0, 1))


def test_another_lineage_is_an_empty_joiner() -> None:
    found = settle(committed(4, lineage=2), None, {0: report(9, lineage=1), 1: report(4, lineage=2)})
    assert (found.step, found.holders) == (4, (1,))


def test_accepted_evidence_counts_although_its_reporter_is_gone() -> None:
    vote = outcome_of(3, 1, 10)
    found = settle(committed(5), vote, {1: report(9, retained=(3, 10))})
    assert (found.step, found.outcome, found.holders) == (10, vote, (1,))


def test_who_can_make_the_initial_state_gives_it_to_those_who_cannot() -> None:
    fresh, used = replace(report(-1), pristine=True), report(-1)
    assert starters({0: used, 1: fresh, 2: fresh}) == (1, 2)
    assert starters({0: fresh, 1: fresh}) == ()
    assert starters({0: used, 1: used}) == ()


def test_models_that_differ_are_named() -> None:
    reports = [(0, replace(report(-1), schema_digest="a" * 64)), (1, replace(report(-1), schema_digest="b" * 64))]
    assert "worker 0; bbbbbbbbbbbb on worker 1" in schema_conflict(reports)
    assert not schema_conflict(reports[:1])
