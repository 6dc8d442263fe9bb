"""What workers save, load or copy right now, put together for one job.

Without it people could not see how far a long save or load is.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.transfers import saves_in_flight, shown_transfers, transfers_of
from trainctl.controller.domain.view import AgentView, ClusterView, ListedAgents
from trainctl.controller.jobs.job_message import job_message
from trainctl.core.records.part import Transfer, TransferKind
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import Progress, WorkerObserved, WorkerPhase
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_reports import ref_of

GIB = 1 << 30


@pytest.fixture(scope="module")
def job() -> JobState:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=1, steps=400), agents=2, slots=1, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    return sim.state


def part(done: float, age_s: float, *, kind: TransferKind = TransferKind.SAVE, step: int = 1200) -> Transfer:
    return Transfer(kind=kind, step=step, done_bytes=int(done * GIB), total_bytes=6 * GIB, age_s=age_s, in_flight=2)


def seen(job: JobState, *transfers: Transfer | None, **changed: object) -> ClusterView:
    agents = [
        AgentView(
            node=slot.node,
            agent_incarnation=slot.agent_incarnation,
            workers=(
                WorkerObserved(
                    job_uid=job.uid, slot=slot.index, incarnation=slot.incarnation, pid=1, phase=WorkerPhase.RUNNING,
                    progress=Progress(generation=1, step=3, transfer=transfers[slot.index]),
                ),
            ),
        )
        for slot in job.sole_island.slots
    ]  # fmt: skip
    agents[-1] = replace(agents[-1], **changed)  # type: ignore[arg-type]
    return ClusterView(agents=ListedAgents(agents))


def test_the_slowest_worker_says_how_long_it_takes(job: JobState) -> None:
    (found,) = transfers_of(job, seen(job, part(3, 10.0), part(1.5, 10.5)))
    assert (found.kind, found.step, found.workers, found.in_flight) == (TransferKind.SAVE, 1200, 2, 2)
    assert (found.done_bytes, found.total_bytes) == (int(4.5 * GIB), 12 * GIB)
    assert found.left_s == pytest.approx(31.5)
    assert found.age_s == 10.5


def test_who_is_done_waits_for_nobody(job: JobState) -> None:
    (found,) = transfers_of(job, seen(job, part(6, 30.0), part(3, 30.0)))
    assert found.done_bytes == 9 * GIB
    assert found.left_s == pytest.approx(30.0)
    (found,) = transfers_of(job, seen(job, part(6, 30.0), part(6, 30.0)))
    assert (found.done_bytes, found.left_s) == (12 * GIB, 0.0)
    (found,) = transfers_of(job, seen(job, part(0, 5.0), part(3, 5.0)))
    assert found.left_s is None, "nobody knows the pace of who has not begun"


def test_only_what_takes_a_second_is_shown(job: JobState) -> None:
    view = seen(job, part(1, 0.9), part(1, 0.8))
    assert shown_transfers(job, view) == ()
    assert saves_in_flight(job, view) == 2
    assert shown_transfers(job, seen(job, part(1, 0.9), part(1, 1.0))) != ()
    assert saves_in_flight(job, seen(job, None, None)) == 0
    assert saves_in_flight(job, seen(job, part(1, 3.0, kind=TransferKind.LOAD), None)) == 0


def test_a_save_that_is_committed_is_over_whatever_its_workers_know(job: JobState) -> None:
    view = seen(job, part(6, 30.0), part(6, 30.0))
    ref = ref_of(1200)
    assert transfers_of(replace(job, checkpoints=(replace(ref, step=1100),)), view) != ()
    assert transfers_of(replace(job, checkpoints=(ref,)), view) == ()
    load = seen(job, part(1, 3.0, kind=TransferKind.LOAD), None)
    assert transfers_of(replace(job, checkpoints=(ref,)), load) != ()


def test_a_save_and_a_load_are_two_things(job: JobState) -> None:
    found = transfers_of(job, seen(job, part(1, 3.0), part(2, 4.0, kind=TransferKind.LOAD, step=1100)))
    assert [(one.kind, one.step, one.workers) for one in found] == [("load", 1100, 1), ("save", 1200, 1)]


@pytest.mark.parametrize(
    "gone", [{"connected": False}, {"process_exited": True}, {"workers": ()}, {"agent_incarnation": 10**6}]
)
def test_who_is_gone_shows_nothing(job: JobState, gone: dict[str, object]) -> None:
    assert transfers_of(job, seen(job, None, part(1, 9.0))) != ()
    assert transfers_of(job, seen(job, None, part(1, 9.0), **gone)) == ()


def test_nor_does_a_dead_worker_or_one_that_was_replaced(job: JobState) -> None:
    view = seen(job, None, part(1, 9.0))
    agent = next(agent for agent in view.agents if agent.workers[0].progress.transfer)
    (worker,) = agent.workers
    dead = replace(agent, workers=(replace(worker, phase=WorkerPhase.EXITED, exit_code=-9),))
    former = replace(agent, workers=(replace(worker, incarnation=worker.incarnation - 1),))
    for other in (dead, former):
        assert transfers_of(job, ClusterView(agents=ListedAgents([other]))) == ()


def test_the_api_shows_it_with_each_workers_part(job: JobState) -> None:
    status = job_message(job, seen(job, part(3, 10.0), part(1.5, 10.0)), now_s=job.phase_since_s, revision=1).status
    (shown,) = status.transfers
    assert (shown.kind, shown.step, shown.workers) == ("save", 1200, 2)
    assert shown.left_s == pytest.approx(30.0)
    workers = status.islands[0].workers
    assert [worker.transfer.done_bytes for worker in workers] == [3 * GIB, int(1.5 * GIB)]
    quiet = job_message(job, seen(job, None, None), now_s=job.phase_since_s, revision=1).status
    assert not quiet.transfers
    assert not any(worker.HasField("transfer") for worker in quiet.islands[0].workers)
