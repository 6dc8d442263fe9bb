"""What agents may do with their certificates, and with those of others; and with jobs that are none of theirs.

Without it one node's certificate could speak for all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc import aio

from trainctl.controller.app import Settings, controller
from trainctl.controller.run_dir import RunDir
from trainctl.controller.tls_settings import TlsSettings
from trainctl.core.join_token import read_join_text
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport
from trainctl.protos.convert import record_to_message
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, job_pb2, job_pb2_grpc, join_pb2, join_pb2_grpc, records_pb2
from trainctl.protos.version import WIRE_VERSION, call_metadata
from unit.controller.controller_harness import Client, FakeAgent, create, run, serving, spec
from unit.security.certificates import key_pem, new_key, request_of

NOBODY = call_metadata("")


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A controller with TLS: its API port, and the way to the other one."""

    people: Client
    authority: bytes
    agents_address: str

    async def joined(self, node: str) -> grpc.ChannelCredentials:
        """A new machine that has joined as ``node``."""
        tokens = join_pb2_grpc.JoinTokenServiceStub(self.people.channel)
        request = join_pb2.CreateJoinTokenRequest(node=node, ttl_s=60)
        text = (await tokens.CreateJoinToken(request, metadata=self.people.metadata, timeout=10)).text
        key = new_key()
        join = join_pb2.JoinRequest(
            node=node, certificate_request=request_of(key, node), token=read_join_text(text).credential
        )
        answer = await join_pb2_grpc.JoinServiceStub(self.people.channel).Join(join, metadata=NOBODY, timeout=10)
        assert answer.authority == self.authority
        return grpc.ssl_channel_credentials(self.authority, key_pem(key), answer.certificate)

    @asynccontextmanager
    async def agent(self, node: str, credentials: grpc.ChannelCredentials) -> AsyncIterator[FakeAgent]:
        async with aio.secure_channel(
            self.agents_address, credentials, options=(("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            yield FakeAgent(Client(channel, NOBODY), node, 2)


@asynccontextmanager
async def encrypted(folder: Path, **changes: float) -> AsyncIterator[Encrypted]:
    settings = Settings(run_dir=RunDir(folder), tls=replace(TlsSettings(), **changes))  # type: ignore[arg-type]
    async with controller(settings) as running:
        authority = (folder / "tls" / "ca.crt").read_bytes()
        credentials = grpc.ssl_channel_credentials(authority)
        async with aio.secure_channel(running.address, credentials) as channel:
            people = Client(channel, call_metadata((folder / "token").read_text().strip()))
            service = join_pb2_grpc.JoinServiceStub(channel)
            located = await service.Locate(join_pb2.LocateRequest(), metadata=NOBODY, timeout=10)
            assert located.agents_address.startswith(":")
            yield Encrypted(people, authority, f"127.0.0.1{located.agents_address}")


def test_an_agent_is_the_node_of_its_certificate_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with encrypted(tmp_path) as system, system.agent("a", await system.joined("a")) as agent:
            other = FakeAgent(agent.client, "b", 2)
            with pytest.raises(grpc.RpcError) as raised:
                await other.register()
            error = error_from_rpc(raised.value)
            assert error.code == "PERMISSION_DENIED"
            assert str(error) == "expected node a, for which the certificate is; found node b"
            await agent.register()
            other.incarnation = agent.incarnation
            other.connect(observes=False)
            ended = await other.ended()
            assert ended is not None
            assert error_from_rpc(ended).code == "PERMISSION_DENIED"
            agent.connect()
            await agent.until(lambda: agent.acked.sequence > 0)
            nodes = (await system.people.call("ListNodes", job_pb2.ListNodesRequest())).nodes
            assert [node.node for node in nodes] == ["a"]
            assert nodes[0].certificate_expires_s == pytest.approx(time.time() + 86400, abs=60)

    run(main)


def test_whoever_was_replaced_is_refused_everywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with encrypted(tmp_path) as system:
            former = await system.joined("a")
            await system.joined("a")
            async with system.agent("a", former) as agent:
                renewal = agent_pb2.RenewRequest(certificate_request=request_of(new_key(), "a"))
                for call in (agent.register(), agent.client.agents.Renew(renewal, metadata=NOBODY, timeout=10)):
                    with pytest.raises(grpc.RpcError) as raised:
                        await call
                    assert error_from_rpc(raised.value).code == "CERTIFICATE_REFUSED"
                    assert "another machine has taken its place" in str(error_from_rpc(raised.value))

    run(main)


def test_a_session_ends_with_the_certificate_that_it_was_opened_with(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            encrypted(tmp_path, agent_life_s=3.0) as system,
            system.agent("a", await system.joined("a")) as agent,
        ):
            await agent.register()
            agent.connect()
            await agent.until(lambda: agent.acked.sequence > 0)
            ended = await agent.ended()
            assert ended is not None
            assert error_from_rpc(ended).code == "CERTIFICATE_OVER"

    run(main)


def test_each_port_answers_only_what_belongs_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with encrypted(tmp_path) as system:
            register = agent_pb2.RegisterRequest(node="a", slots=1, wire_version=WIRE_VERSION)
            with pytest.raises(grpc.RpcError) as raised:
                await system.people.agents.Register(register, metadata=system.people.metadata, timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            async with system.agent("a", await system.joined("a")) as agent:
                jobs = job_pb2_grpc.JobServiceStub(agent.client.channel)
                with pytest.raises(grpc.RpcError) as raised:
                    await jobs.ListJobs(job_pb2.ListJobsRequest(), metadata=system.people.metadata, timeout=10)
                assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            token_alone = grpc.ssl_channel_credentials(system.authority)
            async with aio.secure_channel(system.agents_address, token_alone) as channel:
                stub = agent_pb2_grpc.AgentServiceStub(channel)
                with pytest.raises(grpc.RpcError) as raised:
                    await stub.Register(register, metadata=system.people.metadata, timeout=10)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    run(main)


def test_what_an_agent_says_of_jobs_that_are_none_of_its_own_is_refused_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            own = await running.agent("own")
            uid = (await client.call("CreateJob", create(spec(per_node=2)))).job.uid
            await client.until_phase("a", "RUNNING")
            liar = await running.agent("liar")
            ref = CheckpointRef(uri="/c/forged", step=5, lineage=1, attempt="x", manifest_sha256="d")
            report = CheckpointReport(job_uid=uid, island="island-0", generation=1, step=5, lineage=1, ref=ref)
            liar.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
            liar.report_figures(uid, 1, 2, 3)
            await liar.until(lambda: liar.acked.figures_sequence == 1)  # so that it does not send them for ever
            assert (await client.job("a")).status.step == 0
            listed = await client.call("ListCheckpoints", job_pb2.ListCheckpointsRequest(name="a"))
            assert not listed.checkpoints
            url = f"http://{running.controller.metrics_address}/metrics"
            text = await asyncio.to_thread(lambda: urlopen(url, timeout=10).read().decode())
            assert "trainctl_refused_reports_total 2.0" in text
            own.report_figures(uid, 1, 2, 3)
            await client.until("a", lambda job: job.status.step == 3)

    run(main)


def test_nobody_makes_up_the_lines_of_a_worker_that_runs_elsewhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            own = await running.agent("own")
            await client.call("CreateJob", create(spec(per_node=2)))
            await client.until_phase("a", "RUNNING")
            liar = await running.agent("liar")
            life = own.desired[0]
            request = job_pb2.StreamLogsRequest(name="a", tail_lines=10)
            lines = aiter(client.jobs.StreamLogs(request, metadata=client.metadata, timeout=20))
            await liar.until(lambda: len(liar.log_requests) > 0)
            await own.until(lambda: len(own.log_requests) > 0)

            def chunk(**more: Any) -> agent_pb2.LogChunk:
                worker: dict[str, Any] = {"slot": life.slot, "incarnation": life.incarnation}
                return agent_pb2.LogChunk(request_id=own.log_requests[0].request_id, **worker, **more)

            ahead = records_pb2.LogPosition(slot=life.slot, incarnation=life.incarnation, line=10**6)
            liar.send(
                log_chunk=agent_pb2.LogChunk(request_id=own.log_requests[0].request_id, begun=True, starts=[ahead])
            )
            liar.send(log_chunk=chunk(lines=["forged"], first_line=1))
            liar.report_figures("of-nobody", 1)
            await liar.until(lambda: liar.acked.figures_sequence == 1)
            own.send(log_chunk=chunk(lines=["true"], first_line=1))
            while not (answer := await anext(lines)).lines:
                pass
            assert (answer.node, list(answer.lines)) == ("own", ["true"])

    run(main)


def test_figures_that_come_after_the_end_are_still_the_own_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            uid = (await client.call("CreateJob", create(spec(per_node=2)))).job.uid
            await client.until_phase("a", "RUNNING")
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await client.until_phase("a", "CANCELLED")
            await agent.disconnect()
        async with serving(tmp_path) as running:  # the next leader knows only what was written down
            agent.client = running.client
            agent.connect()
            agent.report_figures(uid, 1, 2)
            await agent.until(lambda: agent.acked.figures_sequence == 1)
            figures = await running.client.call("ListFigures", job_pb2.ListFiguresRequest(name="a", limit=10))
            assert [one.step for one in figures.figures] == [1, 2]

    run(main)
