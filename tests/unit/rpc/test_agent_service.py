"""``AgentService``: lives of agents, who is superseded, what is acknowledged.

Without it an agent that was replaced could still report, or what it said be lost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from trainctl.controller.agents.registry import AgentRegistry
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.part import PartTimes, Transfer, TransferKind
from trainctl.core.records.worker import CheckpointReport, LoadReport, RecoveryReport, WorkerPhase
from trainctl.protos.convert import record_to_message
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import agent_pb2, job_pb2, records_pb2
from unit.controller.controller_harness import FakeAgent, create, run, serving, spec


def test_incarnations_rise_and_an_older_session_is_superseded(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            old = await running.agent()
            new = FakeAgent(running.client, "node-0", 2)
            await new.register()
            assert new.incarnation > old.incarnation
            error = await old.ended()
            assert error is not None
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert error_from_rpc(error).code == "STALE_INCARNATION"

    run(main)


def test_unknown_and_stale_incarnations_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent()
            await agent.disconnect()
            for node, incarnation, code in (
                ("node-0", agent.incarnation - 1, "STALE_INCARNATION"),
                ("node-9", agent.incarnation, "STALE_EPOCH"),  # whoever registered it, this store knows nothing of it
            ):
                other = FakeAgent(running.client, node, 1)
                other.incarnation = incarnation
                other.connect(observes=False)
                error = await other.ended()
                assert error is not None
                assert error_from_rpc(error).code == code

    run(main)


def test_an_agent_that_obeyed_a_newer_leader_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = FakeAgent(running.client, "node-0", 1)
            await agent.register()
            agent.epoch = 99
            agent.connect(observes=False)
            error = await agent.ended()
            assert error is not None
            assert error_from_rpc(error).code == "STALE_EPOCH"

    run(main)


def test_with_an_old_copy_of_the_store_nothing_is_concluded_from_silence(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            witness = FakeAgent(running.client, "node-1", 1)
            await witness.register()
            witness.epoch = 99
            witness.connect(observes=False)
            await witness.ended()
            version = await running.client.call("GetVersion", job_pb2.GetVersionRequest())
            assert "node-1 has obeyed a leader of epoch 99" in version.doubt

    run(main)
    agents = AgentRegistry(lambda: 100.0, settle_s=0.0)
    assert agents.view().settled
    agents.doubt = "epoch 99"
    assert not agents.view().settled  # so reconcile calls nobody lost


@pytest.mark.parametrize(
    ("node", "slots", "wire", "domain"),
    [
        ("", 1, 1, ""),
        ("a/b", 1, 1, ""),
        ("n", 0, 1, ""),
        ("n", 100_000, 1, ""),
        ("n", 1, 2, ""),
        ("n", 1, 1, "rack/4"),
    ],
)
def test_registrations_that_make_no_sense_are_refused(
    tmp_path: Path, node: str, slots: int, wire: int, domain: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            request = agent_pb2.RegisterRequest(node=node, slots=slots, wire_version=wire, failure_domain=domain)
            with pytest.raises(grpc.RpcError) as raised:
                await running.client.agents.Register(request, metadata=running.client.metadata, timeout=10)
            assert error_from_rpc(raised.value).code in ("USAGE", "VERSION_MISMATCH")

    run(main)


def test_a_session_must_begin_with_hello(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            call = client.agents.Session(
                iter([agent_pb2.SessionRequest(goodbye=agent_pb2.Goodbye())]), metadata=client.metadata
            )
            with pytest.raises(grpc.RpcError) as raised:
                await anext(aiter(call))
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(main)


def test_a_malformed_observation_ends_only_that_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            good, bad = await running.agent("good"), await running.agent("bad")
            worker = records_pb2.WorkerObserved(job_uid="j", phase="no such phase")
            bad.send(observed=agent_pb2.AgentObserved(sequence=9, workers=[worker]))
            error = await bad.ended()
            assert error is not None
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            good.report_figures("of-nobody", 1)
            await good.until(lambda: good.acked.figures_sequence == 1)

    run(main)


def test_a_checkpoint_is_committed_before_it_is_acknowledged(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            uid = (await client.call("CreateJob", create(spec()))).job.uid
            await client.until_phase("a", "RUNNING")
            ref = CheckpointRef(uri="/c/step-5", step=5, lineage=1, attempt="x", manifest_sha256="d")
            report = CheckpointReport(job_uid=uid, island="island-0", generation=1, step=5, lineage=1, ref=ref)
            for _ in range(2):
                agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
            before = agent.acked.sequence
            agent.observe()
            await agent.until(lambda: agent.acked.sequence > before)
            listed = await client.call("ListCheckpoints", job_pb2.ListCheckpointsRequest(name="a"))
            assert [one.uri for one in listed.checkpoints] == list(listed.missing) == ["/c/step-5"]
            events = (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            assert [event.type for event in events].count("checkpoint.committed") == 1

    run(main)


def test_a_checkpoint_that_nobody_heard_of_in_time_keeps_its_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            uid = (await client.call("CreateJob", create(spec()))).job.uid
            await client.until_phase("a", "RUNNING")
            for step, age_s in ((5, 0.0), (6, 0.125), (7, 3600.0)):
                ref = CheckpointRef(uri=f"/c/{step}", step=step, lineage=1, attempt="x", manifest_sha256="d")
                report = CheckpointReport(
                    job_uid=uid, island="island-0", generation=1, step=step, lineage=1, ref=ref, age_s=age_s
                )
                agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
            before = agent.acked.sequence
            agent.observe()
            await agent.until(lambda: agent.acked.sequence > before)
            listed = (await client.call("ListCheckpoints", job_pb2.ListCheckpointsRequest(name="a"))).checkpoints
            times = [one.committed_s for one in listed]
            assert times == sorted(times), "none is older than the one before"
            assert times[-1] == times[-2], "nor as old as its agent says, if that cannot be"

    run(main)


def test_a_job_waits_for_slots_that_another_one_holds(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await running.agent("node-0", slots=2)
            await client.call("CreateJob", create(spec("first", per_node=2)))
            await client.until_phase("first", "RUNNING")
            await client.call("CreateJob", create(spec("second", per_node=1)))
            waiting = await client.until("second", lambda job: job.status.reason == "WaitingForCapacity")
            assert waiting.status.phase == "QUEUED"
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="first"))
            await client.until_phase("second", "RUNNING")

    run(main)


def test_two_jobs_that_come_together_do_not_share_a_slot(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            for name in ("a", "b", "c"):
                await client.call("CreateJob", create(spec(name, per_node=2)))
            agents = [await running.agent(f"node-{index}", slots=2) for index in range(2)]
            for agent in agents:
                await agent.until(lambda agent=agent: len(agent.desired) == 2)  # type: ignore[misc]
                assert len({worker.job_uid for worker in agent.desired}) == 1
            nodes = (await client.call("ListNodes", job_pb2.ListNodesRequest())).nodes
            assert [node.slots_used for node in nodes] == [2, 2]
            phases = sorted([(await client.job(name)).status.phase for name in ("a", "b", "c")])
            assert phases.count("QUEUED") == 1

    run(main)


def test_who_looks_on_sees_how_far_a_save_is_and_that_it_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            await client.call("CreateJob", create(spec(per_node=2)))
            await client.until_phase("a", "RUNNING")

            def move(done_bytes: int | None) -> None:
                moving = None
                if done_bytes is not None:
                    moving = Transfer(
                        kind=TransferKind.SAVE, step=5, done_bytes=done_bytes, total_bytes=1000, age_s=2.0
                    )
                for key, worker in agent.workers.items():
                    progress = replace(worker.progress, transfer=moving)
                    agent.workers[key] = replace(worker, progress=progress)
                agent.observe()

            for done_bytes in (250, 750):
                move(done_bytes)
                job = await client.until("a", lambda job, done=done_bytes: _done(job) == 2 * done)  # type: ignore[misc]
                (shown,) = job.status.transfers
                assert (shown.kind, shown.step, shown.total_bytes, shown.workers) == ("save", 5, 2000, 2)
            move(None)
            await client.until("a", lambda job: not job.status.transfers)
            move(500)
            await client.until("a", lambda job: _done(job) == 1000)
            for key, worker in agent.workers.items():  # as an agent whose worker died, and told nobody yet
                agent.workers[key] = replace(worker, phase=WorkerPhase.EXITED, exit_code=-9)
            agent.observe()
            await client.until("a", lambda job: not job.status.transfers)

    run(main)


def _done(job: job_pb2.Job) -> int:
    return sum(transfer.done_bytes for transfer in job.status.transfers)


def test_what_a_save_and_a_load_took_outlives_the_controller(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            uid = (await client.call("CreateJob", create(spec()))).job.uid
            await client.until_phase("a", "RUNNING")
            parts = (PartTimes(0, 900, {"write": 2.0, "sync": 0.5}), PartTimes(1, 900, {"write": 0.2, "sync": 0.5}))
            ref = CheckpointRef(uri="/c/step-5", step=5, lineage=1, attempt="x", manifest_sha256="d")
            saved = CheckpointReport(
                job_uid=uid, island="island-0", generation=1, step=5, lineage=1, ref=ref, parts=parts, size_bytes=1800
            )
            load = LoadReport(uri="/c/step-1", step=1, seconds=3.0, parts=parts, bottleneck="read of rank 0")
            read = RecoveryReport(job_uid=uid, island="island-0", generation=1, global_rank=0, slot=0, load=load)
            agent.send(checkpoint=record_to_message(saved, records_pb2.CheckpointReport))
            agent.send(recovery=record_to_message(read, records_pb2.RecoveryReport))
            job = await client.until("a", lambda job: bool(job.status.loads))
            (shown,) = job.status.loads
            assert (shown.uri, shown.step, shown.ranks, shown.bottleneck) == ("/c/step-1", 1, 2, "read of rank 0")
            assert dict(shown.parts[0].seconds) == {"write": 2.0, "sync": 0.5}
            (written,) = job.status.saves
            assert (written.uri, written.step, written.ranks, written.data_bytes) == ("/c/step-5", 5, 2, 1800)
            assert dict(written.parts[1].seconds) == {"write": 0.2, "sync": 0.5}
        async with serving(tmp_path) as running:
            kept = (await running.client.job("a")).status
            assert (kept.loads, kept.saves) == (job.status.loads, job.status.saves)

    run(main)
