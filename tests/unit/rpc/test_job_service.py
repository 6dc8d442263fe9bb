"""``JobService`` over a real connection, with played agents.

Without it what commands are answered could differ from what the controller does.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import grpc
import pytest

from trainctl.core.errors import (
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    SpecError,
    TrainctlError,
    UsageError,
)
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import agent_pb2, job_pb2
from unit.controller.controller_harness import create, run, serving, spec


def test_a_job_runs_from_submission_to_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent(slots=2)
            client = running.client
            job = (await client.call("CreateJob", create(spec(per_node=2)))).job
            assert job.effective_spec.spec.nodes.target == 1
            shown = await client.until_phase("a", "RUNNING")
            assert {w.node for w in shown.status.islands[0].workers} == {"node-0"}
            (node,) = (await client.call("ListNodes", job_pb2.ListNodesRequest())).nodes
            assert node.failure_domain == "rack-4"
            assert (node.slots, node.slots_used, node.state) == (2, 2, "READY")
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            ended = await client.until_phase("a", "CANCELLED")
            assert sum(ended.status.goodput_s.values()) == pytest.approx(ended.status.wall_s, abs=1e-3)
            await agent.until(lambda: not agent.desired)
            events = (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            assert [event.revision for event in events] == list(range(1, len(events) + 1))
            phases = [event.fields["to"] for event in events if "to" in event.fields]
            assert phases == ["ADMITTED", "STARTING", "RUNNING", "CANCELLING", "CANCELLED"]

    run(main)


def test_the_same_request_id_makes_one_job(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            replies = await asyncio.gather(*(call("CreateJob", create(spec(), "r-1")) for _ in range(20)))
            assert len({reply.job.uid for reply in replies}) == 1
            assert len((await call("ListJobs", job_pb2.ListJobsRequest())).jobs) == 1
            with pytest.raises(UsageError) as error:
                await call("CreateJob", create(spec("b"), "r-1"))
            assert error.value.code == "REQUEST_ID_REUSED"
            assert len(list((tmp_path / "jobs").iterdir())) == 1

    run(main)


def test_a_live_name_is_taken_and_free_again_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            replies = await asyncio.gather(
                *(call("CreateJob", create(spec(), f"r-{i}")) for i in range(5)), return_exceptions=True
            )
            conflicts = [reply for reply in replies if isinstance(reply, ConflictError)]
            assert len(conflicts) == 4
            assert all("cancel a" in error.hint for error in conflicts)
            await call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            first = await running.client.until_phase("a", "CANCELLED")
            second = (await call("CreateJob", create(spec()))).job
            assert second.uid != first.uid
            assert (await running.client.job("a")).uid == second.uid
            assert (await running.client.job(first.uid)).status.phase == "CANCELLED"

    run(main)


def test_a_dry_run_says_what_would_start_and_starts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.agent(slots=2)
            job = spec(per_node=2)
            job["spec"]["scheduling"] = {"priority": 5}
            reply = await running.client.call("CreateJob", create(job, validate_only=True))
            text = "\n".join(reply.plan)
            for words in (
                "2 ranks: 2 of 4 micro-batches each",
                "parameters",
                "jobs/<uid>/checkpoints",
                "lost after",
                "node-0",
                "spec.scheduling.priority has no effect",
            ):
                assert words in text
            assert not reply.job.uid
            assert not (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs
            assert not (tmp_path / "jobs").exists()

    run(main)


def test_everything_wrong_is_said_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "readme.txt").write_text("hello")
    (tmp_path / "file").write_text("")
    job = spec(corpus="/no/such/corpus")
    job["spec"]["checkpoint"] = {"uri": str(tmp_path / "file" / "x"), "resumeFrom": str(tmp_path / "foreign")}

    async def main() -> None:
        async with serving(tmp_path / "run") as running:
            with pytest.raises(SpecError) as error:
                await running.client.call("CreateJob", create(job, "r"))
            assert {p.path for p in error.value.problems} == {
                "spec.train.data.uri",
                "spec.checkpoint.uri",
                "spec.checkpoint.resumeFrom",
            }
            bad = spec()
            bad["spec"]["nodes"] = {"min": 5, "max": 2}
            bad["spec"]["train"]["steps"] = -1
            with pytest.raises(SpecError) as error:
                await running.client.call("CreateJob", create(bad))
            assert len(error.value.problems) >= 2
            assert not (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs
            assert not (tmp_path / "run" / "jobs").exists()

    run(main)


def test_what_does_not_exist_is_not_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            for method in ("GetJob", "CancelJob", "ListEvents", "ListFigures", "ExplainJob", "ListCheckpoints"):
                with pytest.raises(NotFoundError) as error:
                    await running.client.call(method, getattr(job_pb2, f"{method}Request")(name="nobody"))
                assert error.value.hint
            with pytest.raises(UsageError):
                await running.client.call("GetJob", job_pb2.GetJobRequest())

    run(main)


def test_lists_come_in_pages(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            for name in "abcde":
                await call("CreateJob", create(spec(name)))
            names, token = [], ""
            while True:
                reply = await call("ListJobs", job_pb2.ListJobsRequest(page_size=2, page_token=token))
                names += [job.spec.metadata.name for job in reply.jobs]
                token = reply.next_page_token
                if not token:
                    break
            assert names == list("abcde")
            made_up = (b"[]", b"[" * 9_000, b"[1" + b"0" * 400 + b', "u"]')
            tokens = ("???", *(base64.urlsafe_b64encode(text).decode() for text in made_up))
            requests = (job_pb2.ListJobsRequest(page_token=token) for token in tokens)
            for request in (*requests, job_pb2.ListJobsRequest(page_size=-1)):
                with pytest.raises(UsageError):
                    await call("ListJobs", request)

    run(main)


def test_events_are_watched_without_a_gap(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await client.call("CreateJob", create(spec()))
            request = job_pb2.WatchEventsRequest(name="a")
            watching = client.jobs.WatchEvents(request, metadata=client.metadata, timeout=20)

            async def collect() -> list[int]:
                return [reply.event.revision async for reply in watching]

            collecting = asyncio.create_task(collect())
            await running.agent()
            await client.until_phase("a", "RUNNING")
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            revisions = await collecting
            assert revisions == list(range(1, len(revisions) + 1))
            assert len(revisions) > 5

    run(main)


def test_a_refused_call_is_in_the_log_under_the_callers_name_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            metadata = (*running.client.metadata, ("x-trainctl-request", "r-17"))
            with caplog.at_level("INFO"), pytest.raises(grpc.RpcError):
                await running.client.jobs.GetJob(job_pb2.GetJobRequest(name="nobody"), metadata=metadata, timeout=10)
            (record,) = [record for record in caplog.records if record.getMessage() == "GetJob refused"]
            assert (record.__dict__["request_id"], record.__dict__["reason"]) == ("r-17", "NOT_FOUND")

    run(main)


def test_logs_are_relayed_from_all_agents(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agents = [await running.agent(f"node-{i}") for i in range(2)]
            await client.call("CreateJob", create(spec(nodes=2)))
            await client.until_phase("a", "RUNNING")
            call = client.jobs.StreamLogs(
                job_pb2.StreamLogsRequest(name="a", tail_lines=7), metadata=client.metadata, timeout=20
            )
            for index, agent in enumerate(agents):
                await agent.until(lambda agent=agent: bool(agent.log_requests))  # type: ignore[misc]
                request = agent.log_requests[0]
                assert (request.tail_lines, request.follow) == (7, False)
                agent.send(
                    log_chunk=agent_pb2.LogChunk(request_id=request.request_id, slot=index, lines=[f"from {index}"])
                )
                agent.send(log_chunk=agent_pb2.LogChunk(request_id=request.request_id, end=True))
            lines = [(reply.node, list(reply.lines)) async for reply in call]
            assert sorted(lines) == [("node-0", ["from 0"]), ("node-1", ["from 1"])]

    run(main)


def test_followed_logs_end_with_the_job_and_a_reader_that_leaves_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            await client.call("CreateJob", create(spec()))
            await client.until_phase("a", "RUNNING")
            follow = job_pb2.StreamLogsRequest(name="a", follow=True)
            leaving = client.jobs.StreamLogs(follow, metadata=client.metadata, timeout=20)
            await agent.until(lambda: len(agent.log_requests) == 1)
            leaving.cancel()
            await agent.until(lambda: any(request.cancel for request in agent.log_requests))
            staying = client.jobs.StreamLogs(follow, metadata=client.metadata, timeout=20)
            await agent.until(lambda: len(agent.log_requests) == 3)
            request_id = agent.log_requests[2].request_id
            agent.send(log_chunk=agent_pb2.LogChunk(request_id=request_id, slot=0, lines=["last words"]))
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            assert [list(reply.lines) async for reply in staying] == [["last words"]]

    run(main)


def test_a_follower_gets_each_line_once_although_an_agents_stream_breaks(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            await client.call("CreateJob", create(spec()))
            await client.until_phase("a", "RUNNING")

            def chunk(first_line: int, *lines: str) -> None:
                name = agent.log_requests[-1].request_id
                sent = agent_pb2.LogChunk(
                    request_id=name, slot=0, incarnation=5, lines=lines, first_line=first_line, begun=not lines
                )
                if not lines:
                    sent.starts.add(slot=0, incarnation=5, line=first_line)
                agent.send(log_chunk=sent)

            request = job_pb2.StreamLogsRequest(name="a", follow=True, tail_lines=2)
            call = client.jobs.StreamLogs(request, metadata=client.metadata, timeout=20)
            answers = aiter(call)
            await agent.until(lambda: len(agent.log_requests) == 1)
            chunk(7)
            chunk(8, "eight", "nine")
            begun, first = await anext(answers), await anext(answers)
            assert (begun.begun, begun.node, begun.starts[0].line) == (True, "node-0", 7)
            assert (list(first.lines), first.first_line) == (["eight", "nine"], 8)
            await agent.disconnect()
            agent.connect()
            await agent.until(lambda: len(agent.log_requests) == 2)
            again = agent.log_requests[1]
            assert again.resumed
            assert [(p.slot, p.incarnation, p.line) for p in again.positions] == [(0, 5, 9)]
            chunk(9, "nine", "ten")  # of the old stream, read late
            chunk(10, "ten")
            chunk(11, "eleven")
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            rest = [(list(answer.lines), answer.first_line) async for answer in answers]
            assert rest == [(["ten"], 10), (["eleven"], 11)]

    run(main)


def test_a_reader_that_goes_on_says_so_to_the_agents_and_hears_of_one_that_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agents = [await running.agent(f"node-{i}") for i in range(2)]
            await client.call("CreateJob", create(spec(nodes=2)))
            request = job_pb2.StreamLogsRequest(name="a", begun_nodes=["node-1"], since_s=3.5, incarnation=4)
            request.positions.add(slot=1, incarnation=4, line=6)
            call = client.jobs.StreamLogs(request, metadata=client.metadata, timeout=20)
            for agent in agents:
                await agent.until(lambda agent=agent: bool(agent.log_requests))  # type: ignore[misc]
            asked = [agent.log_requests[0] for agent in agents]
            assert [one.resumed for one in asked] == [False, True]
            assert [(one.since_s, one.incarnation, one.positions[0].line) for one in asked] == [(3.5, 4, 6)] * 2
            agents[0].send(log_chunk=agent_pb2.LogChunk(request_id=asked[0].request_id, end=True))
            await agents[1].disconnect()
            assert [list(reply.lines) async for reply in call] == [["[node-1 left before it had sent all]"]]

    run(main)


def test_figures_are_acknowledged_kept_and_listed_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            uid = (await client.call("CreateJob", create(spec()))).job.uid
            await client.until_phase("a", "RUNNING")
            agent.report_figures(uid, 1, 2, sequence=1)
            agent.report_figures(uid, 2, 3, sequence=2)
            agent.report_figures("unknown", 1, sequence=3)
            await agent.until(lambda: agent.acked.figures_sequence == 3)
            listed = await client.call("ListFigures", job_pb2.ListFiguresRequest(name="a", after_step=1))
            assert [one.step for one in listed.figures] == [2, 3]
            status = (await client.job("a")).status
            assert (status.step, status.tokens) == (3, 300)
            assert len((tmp_path / "figures" / f"{uid}.jsonl").read_text().splitlines()) == 3

    run(main)


def test_an_ended_job_cannot_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await client.call("CreateJob", create(spec()))
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await client.until_phase("a", "CANCELLED")
            again = await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            assert again.job.status.phase == "CANCELLED"
            agent = await running.agent()
            await client.call("CreateJob", create(spec("b")))
            await client.until_phase("b", "RUNNING")
            agent.workers = {}
            await agent.disconnect()
            with pytest.raises(UsageError):
                await client.call("CancelJob", job_pb2.CancelJobRequest(name="b", grace_s=-1))

    run(main)


def test_the_store_is_tried_for_whoever_asks_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            assert not (await client.call("GetVersion", job_pb2.GetVersionRequest())).HasField("store_status")
            answer = await client.call("GetVersion", job_pb2.GetVersionRequest(store_within_s=5.0))
            found = answer.store_status
            assert answer.store == f"file:{tmp_path / 'store.sqlite3'}"
            assert (found.error_code, found.error, found.jobs_in_doubt, found.failed) == ("", "", 0, "")
            assert found.took_s > 0
            assert found.size_bytes > 0
            assert found.disk_free_bytes > 0
            before_s = found.confirmed_age_s
            await client.call("CreateJob", create(spec("b")))
            again = await client.call("GetVersion", job_pb2.GetVersionRequest(store_within_s=5.0))
            assert again.store_status.confirmed_took_s > 0
            assert again.store_status.confirmed_age_s < before_s + 5.0

    run(main)


def test_callers_are_checked(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            jobs, good = running.client.jobs, dict(running.client.metadata)
            request = job_pb2.GetVersionRequest()
            cases: tuple[tuple[dict[str, str], type[TrainctlError], str], ...] = (
                ({}, PermissionDeniedError, "UNAUTHENTICATED"),
                ({**good, "authorization": "Bearer nonsense"}, PermissionDeniedError, "UNAUTHENTICATED"),
                ({**good, "x-trainctl-wire": "999"}, PreconditionError, "VERSION_MISMATCH"),
                ({"authorization": good["authorization"]}, PreconditionError, "VERSION_MISMATCH"),
            )
            for metadata, kind, code in cases:
                with pytest.raises(grpc.RpcError) as raised:
                    await jobs.GetVersion(request, metadata=tuple(metadata.items()), timeout=10)
                error = error_from_rpc(raised.value)
                assert isinstance(error, kind)
                assert error.code == code
                assert error.hint
                watch = jobs.WatchJob(job_pb2.WatchJobRequest(name="a"), metadata=tuple(metadata.items()))
                with pytest.raises(grpc.RpcError) as raised:
                    await anext(aiter(watch))
                assert error_from_rpc(raised.value).code == code

    run(main)


def test_bytes_that_are_no_message_are_refused_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            channel: Any = running.client.channel
            metadata = tuple(running.client.metadata)
            unary = channel.unary_unary("/trainctl.v1.JobService/GetJob")
            with pytest.raises(grpc.RpcError) as raised:
                await unary(b"\xff\xff\xff", metadata=metadata, timeout=10)
            assert "expected a protobuf message, found 3 bytes" in str(error_from_rpc(raised.value))
            stream = channel.unary_stream("/trainctl.v1.JobService/WatchJob")
            with pytest.raises(grpc.RpcError) as raised:
                await anext(aiter(stream(b"\xff\xff\xff", metadata=metadata, timeout=10)))
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(main)
    assert "Traceback" not in caplog.text


def test_health_needs_no_token_and_reflection_does(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async def main() -> None:
        async with serving(tmp_path) as running:
            channel: Any = running.client.channel
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", "trainctl.v1.JobService", "leader"):
                reply = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            answers = [a async for a in reflection.ServerReflectionInfo([ask], metadata=running.client.metadata)]
            names = {service.name for service in answers[0].list_services_response.service}
            assert {"trainctl.v1.JobService", "trainctl.v1.AgentService"} <= names
            with pytest.raises(grpc.RpcError) as raised:
                await anext(aiter(reflection.ServerReflectionInfo([ask])))
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(main)
