"""What saves and loads took, counted with the job: once each, and never less than before.

Without it a dashboard could count a save twice.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint import monitor
from trainctl.controller.domain import checkpoint_figures as figures
from trainctl.controller.domain.checkpoint_figures import PARTS_KEPT, STAGE_BUCKETS_S, CheckpointFigures
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_checkpoint, observe_recovery
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records import part as words
from trainctl.core.records.part import PartTimes, storage_kind
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import CheckpointReport, LoadReport, RecoveryReport
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_reports import saved

NOW_S = 5000.0


@pytest.fixture(scope="module")
def job() -> JobState:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=1, max=1), per_node=2, steps=400), agents=1, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    return sim.state


def report(state: JobState, step: int, *write_s: float, error: str = "", cause: str = "") -> CheckpointReport:
    parts = tuple(PartTimes(rank, 100 * (rank + 1), {"write": s, "copy": 0.02}) for rank, s in enumerate(write_s))
    found = saved(state, step, age_s=0.25, error=error)
    return replace(found, parts=parts, cause=cause, seal_s=0.5, size_bytes=1000, pool_bytes=77)


def load(generation: int, *read_s: float, rank: int = 0) -> RecoveryReport:
    parts = tuple(PartTimes(r, 100, {"plan": 0.1, "read": s}, 150) for r, s in enumerate(read_s))
    told = LoadReport(uri="s3://b/step-5/a", step=5, seconds=2.5, parts=parts, bottleneck="read of rank 1 on s3: 2.0 s")
    return RecoveryReport(
        job_uid="u1", island="island-0", generation=generation, global_rank=rank, slot=rank, load=told
    )


def test_words_are_those_of_the_workers() -> None:
    assert tuple(monitor.STAGES) == words.SAVE_STAGES
    assert tuple(monitor.LOAD_STAGES) == words.LOAD_STAGES
    assert words.OTHER in words.CAUSES


def test_ranks_and_checkpoints_add_up(job: JobState) -> None:
    state = observe_checkpoint(job, report(job, 10, 0.2, 2.0), NOW_S).state
    state = observe_checkpoint(state, report(state, 20, 1.0, 1.0, 4.0, 1.0), NOW_S + 60).state
    found = state.checkpoint_figures
    write = found.saves.stages["write"]
    assert sum(write.counts) == 6
    assert write.sum_s == pytest.approx(9.2)
    assert write.newest_s == (1.0, 4.0, 4.0)
    by_bound = dict(zip(STAGE_BUCKETS_S, write.counts, strict=False))
    assert (by_bound[0.3], by_bound[1.0], by_bound[3.0], by_bound[10.0]) == (1, 3, 1, 1)
    assert sum(found.saves.stages["seal"].counts) == sum(found.saves.stages["publish"].counts) == 2
    assert found.saves.stages["publish"].sum_s == pytest.approx(0.5)
    assert found.saves.bytes_moved == {"mem": 2000}
    assert found.imbalance == pytest.approx(1.6)
    assert found.pool_bytes == 77
    assert JobState.from_wire(json.loads(json.dumps(state.to_wire()))) == state, "whoever leads next counts on"


def test_a_report_that_comes_again_counts_once(job: JobState) -> None:
    state = job
    for _ in range(3):
        state = observe_checkpoint(state, report(state, 10, 0.2), NOW_S).state
        state = observe_checkpoint(state, report(state, 20, error="rank 0: full", cause="storage"), NOW_S + 1).state
    assert sum(state.checkpoint_figures.saves.stages["write"].counts) == 1
    assert state.checkpoint_figures.failures == {"storage": 1}
    for step, cause in ((30, "late_copy"), (40, "storage"), (50, "a word of another version"), (60, "")):
        state = observe_checkpoint(state, report(state, step, error="no", cause=cause), NOW_S + step).state
    assert state.checkpoint_figures.failures == {"storage": 2, "late_copy": 1, "other": 2}


def test_workers_of_an_older_version_tell_nothing_of_stages(job: JobState) -> None:
    old = replace(report(job, 10), seal_s=0.0, pool_bytes=0)
    state = observe_checkpoint(job, old, NOW_S).state
    assert state.checkpoint_figures.saves.stages == {}
    assert state.checkpoint_figures.saves.bytes_moved == {"mem": 1000}
    without = job.to_wire()
    for name in ("checkpointFigures", "loads", "saves"):
        del without[name]
    assert JobState.from_wire(without) == job, "nor does what an older leader has stored"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8), st.text(max_size=5))
def test_whatever_a_worker_says_counts_never_fall(seconds: list[float], stage: str) -> None:
    told = CheckpointReport(
        job_uid="u", island="i", generation=1, step=1, lineage=1,
        parts=tuple(PartTimes(rank, 1, {stage: s}) for rank, s in enumerate(seconds)),
    )  # fmt: skip
    found = figures.saved(CheckpointFigures(), told, "/c")
    for one in found.saves.stages.values():
        assert one.sum_s >= 0
        assert min(one.counts) >= 0
    assert set(found.saves.stages) <= {*words.SAVE_STAGES, "other", "seal", "publish"}


def test_a_load_is_told_by_rank_0_and_kept(job: JobState) -> None:
    first = observe_recovery(job, load(1, 0.5, 2.0), NOW_S)
    assert first.durable, "no recovery is a part of it, and it is not lost all the same"
    (event,) = first.events
    assert event.type == "checkpoint.loaded"
    assert event.message == (
        "checkpoint of step 5 is loaded: s3://b/step-5/a (200 B into 2 ranks in 2.50 s; read of rank 1 on s3: 2.0 s)"
    )
    (kept,) = first.state.loads
    assert (kept.generation, kept.ranks, kept.data_bytes, kept.moved_bytes, kept.loaded_s) == (1, 2, 200, 300, NOW_S)
    again = observe_recovery(first.state, load(1, 0.5, 2.0), NOW_S + 9)
    assert (again.state, again.events) == (first.state, ())
    counted = first.state.checkpoint_figures
    assert counted.amplification == 1.5
    assert counted.loads.stages["read"].newest_s == (0.5, 2.0, 2.0)
    assert counted.loads.bytes_moved == {"s3": 300}
    other = RecoveryReport(job_uid="u1", island="island-0", generation=2, global_rank=3, slot=3)
    assert not observe_recovery(first.state, other, NOW_S).durable


def test_what_the_newest_saves_took_is_kept_by_rank_and_told(job: JobState) -> None:
    state = job
    for step in range(10, 70, 10):
        told = observe_checkpoint(
            state, replace(report(state, step, 0.2, 1.5), bottleneck="write of rank 1"), NOW_S + step
        )
        state = told.state
    assert [kept.step for kept in state.saves] == [30, 40, 50, 60]
    newest = state.saves[-1]
    assert [(part.rank, part.seconds["write"]) for part in newest.parts] == [(0, 0.2), (1, 1.5)]
    assert (newest.ranks, newest.bottleneck, newest.seal_s) == (2, "write of rank 1", report(state, 60).seal_s)
    assert newest.data_bytes == sum(part.data_bytes for part in newest.parts) > 0
    (event,) = told.events
    assert event.fields["rank_1"] == "200 B, write 1.500 s, copy 0.020 s"
    assert event.fields["step"] == "60"
    again = observe_checkpoint(state, report(state, 60, 0.2, 1.5), NOW_S + 99).state
    assert again.saves == state.saves, "a report that comes again is no other save"
    assert JobState.from_wire(json.loads(json.dumps(state.to_wire()))) == state
    many = observe_checkpoint(job, report(job, 10, *(float(rank) for rank in range(100))), NOW_S).state.saves[0]
    assert ([part.rank for part in many.parts], many.ranks) == (list(range(100 - PARTS_KEPT, 100)), 100)


def test_a_load_of_nothing_amplifies_nothing(job: JobState) -> None:
    found = observe_recovery(job, load(1), NOW_S).state
    assert (found.loads[0].data_bytes, found.checkpoint_figures.amplification) == (0, 0.0)


def test_reads_that_were_repeated_add_up_and_are_told(job: JobState) -> None:
    told = load(1, 0.5, 2.0, 1.0)
    assert told.load is not None
    healed = tuple(replace(part, healed_reads=count) for part, count in zip(told.load.parts, (2, 0, 1), strict=True))
    first = observe_recovery(job, replace(told, load=replace(told.load, parts=healed)), NOW_S)
    assert first.events[0].message.endswith("read of rank 1 on s3: 2.0 s; 3 reads only right when repeated)")
    assert first.state.loads[0].healed_reads == first.state.checkpoint_figures.healed_reads == 3
    again = observe_recovery(first.state, load(2, 0.5), NOW_S).state
    assert (again.loads[1].healed_reads, again.checkpoint_figures.healed_reads) == (0, 3)
    assert JobState.from_wire(json.loads(json.dumps(again.to_wire()))) == again


def test_a_snapshot_is_told_as_a_load_and_is_no_checkpoint_in_the_figures(job: JobState) -> None:
    told = load(1, 0.5, 2.0)
    assert told.load is not None
    found = replace(told.load, uri="snapshot://step-000000000005/a", bottleneck="fetch of rank 1: 1.00 s")
    taken = observe_recovery(job, replace(told, load=found), NOW_S)
    (event,) = taken.events
    assert event.message == (
        "snapshot of step 5 is loaded: snapshot://step-000000000005/a "
        "(200 B into 2 ranks in 2.50 s; fetch of rank 1: 1.00 s)"
    )
    assert [kept.uri for kept in taken.state.loads] == [found.uri]
    assert taken.state.checkpoint_figures == job.checkpoint_figures


def test_a_damaged_copy_that_was_replaced_is_an_event_of_its_own(job: JobState) -> None:
    told = load(1, 0.5, 2.0)
    assert told.load is not None
    damaged = tuple(f"node-{n}: data/w00001-000.safetensors is corrupt" for n in range(5))
    found = replace(told.load, uri="snapshot://step-000000000005/a", damaged=damaged)
    repaired, loaded = observe_recovery(job, replace(told, load=found), NOW_S).events
    assert (repaired.type, repaired.reason, loaded.type) == ("snapshot.repaired", "Damaged", "checkpoint.loaded")
    assert repaired.message == (
        "5 files of the snapshot of step 5 were not as they were saved, so another node's copy was taken: "
        "node-0: data/w00001-000.safetensors is corrupt; node-1: data/w00001-000.safetensors is corrupt; "
        "node-2: data/w00001-000.safetensors is corrupt"
    )
    assert repaired.fields == {"step": "5", "generation": "1"}


def test_of_many_ranks_the_slowest_are_kept_and_of_many_loads_the_newest(job: JobState) -> None:
    state = job
    for generation in range(1, 8):
        state = observe_recovery(state, load(generation, *(float(rank) for rank in range(100))), NOW_S).state
    assert [kept.generation for kept in state.loads] == [4, 5, 6, 7]
    assert [part.rank for part in state.loads[-1].parts] == list(range(100 - PARTS_KEPT, 100))
    assert state.loads[-1].ranks == 100
    assert sum(state.checkpoint_figures.loads.stages["read"].counts) == 700


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("/shared/c", "file"),
        ("file:///shared/c", "file"),
        ("s3://b/c", "s3"),
        ("S3://b/c", "s3"),
        ("memory://x", "memory"),
        ("://x", "other"),
        ("a b://x", "other"),
        ("x" * 21 + "://x", "other"),
    ],
)
def test_storage_in_a_word(uri: str, kind: str) -> None:
    assert storage_kind(uri) == kind


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.5, 3.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([1.0, 2.0, 3.0, 4.0], 0.9, 4.0)],
)
def test_quantiles_are_values_that_were_measured(values: list[float], share: float, expected: float) -> None:
    assert figures.quantile(values, share) == expected
