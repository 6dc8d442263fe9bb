"""What is known of a job's snapshots: which is the newest, on which nodes, what it is worth, and why one is lost.

Without it a recovery could count on a snapshot that is lost, or leave out one that is whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_checkpoint, reconcile, request_rollback
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.snapshot_words import sentences, why_lost
from trainctl.controller.domain.snapshots import MADE, NodeShare, SnapshotFigures, found, told
from trainctl.controller.jobs.job_message import job_message
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotsMade
from trainctl.core.records.spec import SnapshotsSpec
from trainctl.core.records.worker import CheckpointReport, WorkerError
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import generation, record, start, trained, wait_for, worker
from unit.domain.sample_snapshots import MIB, held, made, snapshot

NOTHING = SnapshotFigures()


def tell(
    figures: SnapshotFigures = NOTHING,
    *,
    nodes: Collection[str] = "ab",
    generation: int = 1,
    now_s: float = 100.0,
    epoch: int = 1,
    **by_node: SnapshotsMade,
) -> SnapshotFigures:
    return told(figures, by_node, generation=generation, nodes=nodes, now_s=now_s, epoch=epoch)


def test_the_newest_is_what_all_nodes_completed() -> None:
    figures = tell(a=made(held(10, 0, 1, 2, 3), 2, age_s=1.5), b=made(held(10, 2, 3, 0, 1), 2, age_s=1.0))
    assert (figures.newest, figures.parts, figures.complete_s) == (held(10).snapshot, 4, 99.0)
    assert figures.nodes == (NodeShare(node="a", parts=(0, 1, 2, 3), size_bytes=4 * MIB),
                             NodeShare(node="b", parts=(2, 3, 0, 1), size_bytes=4 * MIB))  # fmt: skip
    assert (figures.uncopied, figures.size_bytes, figures.so_far) == (0, 8 * MIB, {MADE: 2})


def test_it_is_told_again_and_again_and_changes_nothing() -> None:
    a, b = (made(held(10, 0, 1, 2, 3), 2, age_s=age_s) for age_s in (1.5, 1.0))
    first = tell(a=a, b=b)
    assert tell(first, now_s=107.0, a=a, b=b) == first
    assert tell(first, epoch=2, a=a, b=b) == replace(first, epoch=2)
    assert tell(first, epoch=2) == first, "nobody was heard"


def test_a_node_that_tells_a_little_later_is_no_node_without_the_snapshot() -> None:
    before = tell(a=made(held(10, 0, 1), 2), b=made(held(10, 2, 3), 2))
    after = tell(before, a=made(held(15, 0, 1), 3), b=made(held(10, 2, 3), 2), now_s=101.0)
    assert (after.newest, after.so_far) == (held(15).snapshot, {MADE: 3})
    assert [share.parts for share in after.nodes] == [(0, 1), (2, 3)]
    assert after.uncopied == 4
    first = tell(a=made(held(10, 0, 1), 1))
    assert (first.newest, first.so_far) == (None, {MADE: 1}), "b is heard, and will tell"
    assert tell(first, nodes="a", a=made(held(10, 0, 1), 1)).newest == held(10).snapshot, "b is not heard at all"


def test_what_an_older_generation_made_is_added_up_and_not_taken_for_news() -> None:
    figures = tell(a=made(held(10, 0, 1, of=2), 2), b=made(held(10, 1, 0, of=2), 2))
    kept = found(figures, [(held(10).snapshot, {"a": held(10, 0, 1, of=2)})], generation=2)
    assert (kept.newest, kept.complete_s, kept.uncopied) == (figures.newest, figures.complete_s, 2)
    assert kept.so_far == {MADE: 2}
    assert tell(kept, generation=2, a=made(held(10, 0, 1, of=2), 2)) == kept
    more = tell(kept, nodes="a", generation=2, a=made(held(20, 0, 1, of=2), 1, generation=2))
    assert (more.newest, more.so_far) == (held(20).snapshot, {MADE: 3})


def test_only_a_whole_one_is_found() -> None:
    known = tell(a=made(held(15, 0, 1), 1), b=made(held(15, 2, 3), 1))
    there = [(held(10).snapshot, {"a": held(10, 0, 1, 2, 3)}), (held(15).snapshot, {"a": held(15, 0, 1)})]
    older = found(known, there, generation=2)
    assert (older.newest, older.complete_s) == (held(10).snapshot, 0.0)
    assert found(known, there[1:], generation=2).newest is None
    assert found(known, [], generation=2).nodes == ()


def test_the_first_node_that_knows_why_is_believed() -> None:
    vague = made(None, 0, error="that of step 5 failed: another node did not complete it")
    clear = made(None, 0, error="that of step 5 failed: rank 2: no room", cause="no_room")
    figures = tell(a=vague)
    assert (figures.stopped, figures.so_far) == (vague.error, {})
    figures = tell(figures, a=vague, b=clear)
    assert (figures.stopped, figures.so_far) == (clear.error, {"no_room": 1})
    assert tell(figures, a=vague, b=clear) == figures
    nobody_knew = found(tell(a=vague), [], generation=2)
    assert (nobody_knew.stopped, nobody_knew.so_far) == ("", {"other": 1})
    assert tell(a=made(None, 0, error="x", cause="levitated")).so_far == {"other": 1}


KNOWN = tell(a=made(held(15, 0, 1), 3), b=made(held(15, 2, 3), 3))


@pytest.mark.parametrize(
    ("there", "nodes", "lost", "expected"),
    [
        ({"a": held(15, 0, 1), "b": held(15, 2, 3)}, "ab", (), ""),
        ({"a": held(20, 0, 1, 2, 3)}, "ab", (), ""),
        (
            {"a": held(15, 0, 1)},
            "ac",
            (),
            "that of step 15 lacks parts 2, 3 of 4, which only b (no worker is there now) had",
        ),
        (
            {"b": held(20, 3)},
            "b",
            (),
            "that of step 20 lacks parts 0, 1, 2 of 4, which only a (no worker is there now), b (not in its memory any "
            "more) had",
        ),
        (
            {"a": held(10, 0, 1, 2, 3)},
            "ab",
            (),
            "that of step 15 lacks parts 0, 1, 2, 3 of 4, which only a (not in its memory any more), b (not in its "
            "memory any more) had",
        ),
        ({}, "ab", ("1-15",), "that of step 15 could not be loaded"),
    ],
)
def test_why_it_is_lost(
    there: Mapping[str, SnapshotHeld], nodes: Collection[str], lost: Collection[str], expected: str
) -> None:
    by_ref = [(one.snapshot, there) for one in list(there.values())[:1]]
    assert why_lost(KNOWN, by_ref, nodes=nodes, lost=lost) == expected


def test_why_there_never_was_one() -> None:
    assert why_lost(NOTHING, [], nodes="a", lost=()) == ""
    stopped = tell(a=made(None, 0, error="that of step 5 failed: no room", cause="no_room"))
    assert why_lost(stopped, [], nodes="a", lost=()) == (
        "none was made in generation 1: that of step 5 failed: no room"
    )  # fmt: skip
    untold = why_lost(NOTHING, [(held(5).snapshot, {"a": held(5, 0, 1, 3)})], nodes="a", lost=())
    assert untold == "that of step 5 lacks part 2 of 4"


def test_in_sentences() -> None:
    assert sentences(NOTHING, step=9, now_s=1.0) == ()
    (alone,) = sentences(KNOWN, step=19, now_s=112.0)
    assert alone == (
        "the newest snapshot is of step 15, 12s old, in the memory of 2 nodes (4.0 MiB, 4 of its 4 parts on one "
        "node only): where no worker is left that holds what is lost, 4 steps would be repeated"
    )
    (on_disk,) = sentences(KNOWN, step=19, now_s=112.0, on_disk=True)
    assert on_disk == alone.replace("in the memory of", "on the disks of")
    copied = tell(a=made(held(15, 0, 1, of=2), 3), b=made(held(15, 1, 0, of=2), 3, error="full", cause="storage"))
    twice, stopped = sentences(replace(copied, complete_s=0.0), step=16, now_s=112.0)
    assert "of step 15, in the memory of 2 nodes (4.0 MiB, each part twice)" in twice
    assert twice.endswith("1 step would be repeated")
    assert stopped == "generation 1 makes no more snapshots: full"


def test_copies_in_one_failure_domain_are_counted_and_said() -> None:
    def of(**domains: str) -> SnapshotFigures:
        held_by = {"a": held(15, 0, 1, of=2), "b": held(15, 1, 0, of=2), "c": held(15, 1, of=2)}
        by_node = {node: made(held_by[node], 3, failure_domain=domain) for node, domain in domains.items()}
        return told(NOTHING, by_node, generation=1, nodes=domains.keys(), now_s=100.0, epoch=1)

    assert of(a="", b="").in_one_domain == of(a="r1", b="r2").in_one_domain == of(a="r1", b="").in_one_domain == 0
    assert of(a="r1").in_one_domain == 0, "without a copy it is not even on two nodes"
    figures = of(a="r1", b="r1", c="r2")
    assert (figures.in_one_domain, figures.uncopied) == (1, 0)
    (said,) = sentences(figures, step=16, now_s=112.0)
    assert "each part twice, 1 of 2 parts in one failure domain only" in said
    kept = found(figures, [(held(15).snapshot, {"a": held(15, 0, 1, of=2), "b": held(15, 1, 0, of=2)})], generation=2)
    assert (kept.in_one_domain, [share.failure_domain for share in kept.nodes]) == (2, ["r1", "r1"])


# -- of a job ----------------------------------------------------------------------------------------------------------


def with_snapshots(sim: Simulation, interval_steps: int = 5) -> None:
    old = sim.state.spec
    checkpoint = replace(old.spec.checkpoint, snapshots=SnapshotsSpec(interval_steps=interval_steps))
    sim.state = replace(sim.state, spec=replace(old, spec=replace(old.spec, checkpoint=checkpoint)))


def training() -> Simulation:
    sim = start(agents=3)
    with_snapshots(sim)
    trained(sim, 16)
    return sim


def candidate(sim: Simulation) -> str:
    (said,) = [line for line in explain(sim.state, sim.now_s) if line.startswith("rung snapshot")]
    return said


def end_all(sim: Simulation) -> None:
    for slot in range(4):
        worker(sim, slot).end(-9, sim.now_s)


def test_it_is_shown_while_the_job_trains() -> None:
    sim = training()
    empty = job_message(sim.state, sim.view(), now_s=sim.now_s, revision=1).status
    assert (empty.HasField("snapshot"), empty.snapshot.parts) == (True, 0)
    ref = snapshot(sim)
    trained(sim, ref.step + 3)
    status = job_message(sim.state, sim.view(), now_s=sim.now_s, revision=1).status
    shown = status.snapshot
    assert (shown.step, shown.lineage, shown.parts, shown.uncopied_parts, shown.made) == (ref.step, 1, 4, 0, 1)
    assert shown.steps_back == status.step - ref.step >= 2
    assert [(one.node, list(one.parts), one.size_bytes) for one in shown.nodes] == [
        ("node-0", [0, 1, 2, 3], 4 * MIB),
        ("node-1", [0, 1, 2, 3], 4 * MIB),
    ]
    assert sim.now_s - 30 < shown.complete_s < sim.now_s
    assert any(f"the newest snapshot is of step {ref.step}, " in line for line in explain(sim.state, sim.now_s))
    sim.run()
    assert not job_message(sim.state, sim.view(), now_s=sim.now_s, revision=1).status.HasField("snapshot")
    assert not any("newest snapshot" in line for line in explain(sim.state, sim.now_s))


def test_a_job_that_makes_none_shows_none() -> None:
    sim = start()
    worker(sim, 0).snapshots = made(held(5, 0, 1, 2, 3), 1)
    trained(sim, 5)
    assert sim.state.snapshot_figures == NOTHING
    assert not job_message(sim.state, sim.view(), now_s=sim.now_s, revision=1).status.HasField("snapshot")


def test_news_of_a_snapshot_alone_are_not_written() -> None:
    sim = training()
    snapshot(sim)
    for slot in (0, 2):
        newest = worker(sim, slot).snapshots
        assert newest is not None
        worker(sim, slot).snapshots = replace(newest, made=newest.made + 1)

    def look(state: JobState) -> tuple[bool, bool]:
        result = reconcile(state, sim.view(), {}, sim.now_s, sim.epoch, sim.ids)
        return result.state.snapshot_figures != state.snapshot_figures, result.durable

    assert look(sim.state) == (True, False)
    assert look(replace(sim.state, suspects=(999,))) == (True, True)


def test_a_loss_of_all_workers_goes_back_to_it() -> None:
    sim = training()
    ref = snapshot(sim)
    end_all(sim)
    generation(sim, 2)
    assert (record(sim).rung, record(sim).snapshot) == (Rung.SNAPSHOT, ref)
    assert candidate(sim).startswith("rung snapshot (chosen): ")
    assert f"the memory of 2 nodes holds step {ref.step}; redo " in candidate(sim)
    figures = sim.state.snapshot_figures
    assert (figures.newest, figures.generation, figures.so_far) == (ref, 2, {MADE: 1})


def test_a_lost_node_takes_parts_with_it_and_explain_says_which() -> None:
    sim = training()
    ref = snapshot(sim, copies=False)
    end_all(sim)
    sim.kill_agent(next(agent for agent in sim.cluster.agents if agent.node == "node-1"))
    generation(sim, 2)
    assert record(sim).rung is Rung.CHECKPOINT
    assert candidate(sim) == (
        f"rung snapshot: not possible, that of step {ref.step} lacks parts 2, 3 of 4, which only node-1 (no worker is "
        "there now) had"
    )
    assert sim.state.snapshot_figures.newest is None
    (decided,) = [e.message for e in sim.events if e.type == "recovery.decided"]
    assert "snapshot not possible: that of step" in decided
    assert "which only node-1 (no worker is there now) had" in decided
    assert re.search(r"checkpoint \d+\.\d\d s", decided), "what was possible is told with its cost"


def test_one_that_cannot_be_loaded_is_named_with_its_node() -> None:
    sim = training()
    ref = snapshot(sim)
    end_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.SNAPSHOT)
    message = f"the snapshot of step {ref.step} cannot be loaded on node-1: data/w00001-000.safetensors is corrupt"
    unlucky = worker(sim, 2)
    unlucky.error = WorkerError(type="SnapshotLostError", message=message, code="SNAPSHOT_LOST", traceback="")
    unlucky.end(1, sim.now_s)
    end_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    (rejected,) = [e.message for e in sim.events if e.type == "snapshot.rejected"]
    assert rejected == f"{message}; it is not tried again"
    assert candidate(sim) == f"rung snapshot: not possible, that of step {ref.step} could not be loaded"


def test_where_the_newest_checkpoint_is_damaged_the_snapshot_before_it_is_gone_back_to() -> None:
    """The checkpoint began a lineage in which nothing was trained: what came before it descends from the same."""
    sim = training()
    ref = snapshot(sim)
    wait_for(sim, lambda: sim.state.checkpoints[-1].step > ref.step)
    newest = sim.state.checkpoints[-1]
    sim._checkpoints = lambda: None  # type: ignore[method-assign]
    sim.cluster.damaged = {newest.uri: frozenset(range(4))}
    end_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.SNAPSHOT)
    tried = [(one.rung, one.target_step) for one in sim.check.records[1:]]
    assert tried == [(Rung.CHECKPOINT, newest.step), (Rung.SNAPSHOT, ref.step)]
    assert record(sim).snapshot == ref
    assert record(sim).lineage == 3
    wait_for(sim, lambda: worker(sim, 0).applied > ref.step)


def test_a_checkpoint_of_the_lineage_that_was_left_gives_way_to_one_of_the_next() -> None:
    """A snapshot that was cheaper to load was older than a checkpoint; the steps up to that are trained again."""
    sim = training()
    ref = snapshot(sim)
    wait_for(sim, lambda: sim.state.checkpoints[-1].step > ref.step)
    newest = sim.state.checkpoints[-1]
    old = sim.state.sole_island
    went_back = replace(record(sim), generation=2, lineage=2, target_step=ref.step, rung=Rung.SNAPSHOT, snapshot=ref)
    state = sim.state.with_island(replace(old, record=went_back))

    def saved(step: int, lineage: int) -> Reconciliation:
        uri = f"mem://{lineage}-{step}"
        made = CheckpointRef(uri=uri, step=step, lineage=lineage, attempt=uri, manifest_sha256="")
        return observe_checkpoint(state, report_of(made), sim.now_s)

    assert newest.step - 1 > ref.step
    told = saved(newest.step - 1, 2)
    assert [one.step for one in told.state.checkpoints][-1] == newest.step - 1
    assert newest not in told.state.checkpoints
    assert told.events[0].message.endswith(f"; given up: {newest.uri}")
    assert [event.reason for event in saved(newest.step + 1, 1).events] == ["OldLineage"]


def report_of(ref: CheckpointRef) -> CheckpointReport:
    return CheckpointReport(job_uid="u1", island="island-0", generation=2, step=ref.step, lineage=ref.lineage, ref=ref)


def test_ancestors_are_kept_with_the_job_and_an_older_controller_had_none() -> None:
    sim = training()
    snapshot(sim)
    end_all(sim)
    generation(sim, 2)
    (ancestor,) = sim.state.sole_island.ancestors
    assert (ancestor.lineage, ancestor.step) == (1, record(sim).target_step)
    assert JobState.from_wire(sim.state.to_wire()) == sim.state
    ref = record(sim).snapshot
    sim.state = sim.state.with_island(replace(sim.state.sole_island, ancestors=()))
    sim._checkpoints = lambda: None  # type: ignore[method-assign]
    end_all(sim)
    generation(sim, 3)
    assert record(sim).snapshot == ref


def test_a_roll_back_that_was_asked_for_goes_to_a_checkpoint() -> None:
    sim = training()
    snapshot(sim)
    wait_for(sim, lambda: len(sim.state.checkpoints) > 1)
    sim.persist(request_rollback(sim.state, sim.now_s, target=sim.state.checkpoints[0]))
    generation(sim, 2)
    assert candidate(sim) == "rung snapshot: not possible, the roll-back that was asked for goes to a checkpoint"
    assert sim.state.snapshot_figures.newest is None


def test_what_was_made_is_still_known_when_a_new_leader_has_heard_the_workers() -> None:
    sim = training()
    stored = sim.state.to_wire()
    ref = snapshot(sim)
    assert JobState.from_wire(sim.state.to_wire()) == sim.state
    sim.state = JobState.from_wire(stored)
    assert sim.state.snapshot_figures == NOTHING
    wait_for(sim, lambda: sim.state.snapshot_figures.newest == ref)
    assert sim.state.snapshot_figures.so_far == {MADE: 1}
