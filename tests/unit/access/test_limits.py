"""Token buckets in virtual time, and the limits of a controller that serves.

Without it one script in a loop could shut all others out.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from trainctl.controller.access.limits import Bucket, Buckets, Limits, Rate, take
from trainctl.core.errors import TrainctlError, UnavailableError
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import access_pb2, agent_pb2, job_pb2
from trainctl.protos.version import call_metadata
from unit.access.api import methods, own, token_for, with_token
from unit.controller.controller_harness import FakeAgent, Running, create, run, serving, spec


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    rate = Rate(10, 3)
    bucket: Bucket | None = None
    waits = []
    for _ in range(5):
        bucket, wait_s = take(bucket, rate, 100.0)
        waits.append(round(wait_s, 6))
    assert waits == [0, 0, 0, 0.1, 0.1]
    bucket, wait_s = take(bucket, rate, 100.1)
    assert wait_s == 0
    _, wait_s = take(bucket, rate, 100.1)
    assert wait_s > 0


@pytest.mark.parametrize("seed", range(5))
def test_over_any_time_no_more_than_burst_and_rate_allow_and_whoever_waits_is_let_in(seed: int) -> None:
    chance = random.Random(seed)
    rate = Rate(chance.uniform(0.5, 100), chance.randint(1, 200))
    bucket, now_s, granted = None, 0.0, 0
    for _ in range(2000):
        now_s += chance.expovariate(rate.per_s * 3)
        bucket, wait_s = take(bucket, rate, now_s)
        granted += wait_s == 0
        assert granted <= rate.burst + rate.per_s * now_s + 1e-6
        if wait_s and chance.random() < 0.1:
            bucket, again_s = take(bucket, rate, now_s + wait_s + 1e-9)
            now_s += wait_s + 1e-9
            assert again_s == 0
            granted += 1
    assert granted >= rate.per_s * now_s * 0.9


def test_a_clock_that_goes_back_neither_gives_nor_takes() -> None:
    bucket, _ = take(None, Rate(1, 2), 100.0)
    bucket, _ = take(bucket, Rate(1, 2), 50.0)
    _, wait_s = take(bucket, Rate(1, 2), 50.0)
    assert wait_s == 1.0


def test_buckets_of_many_are_forgotten_not_kept() -> None:
    buckets = Buckets(Rate(1, 1), most=100)
    for index in range(10_000):
        assert buckets.take(f"host-{index}", 0.0) == 0
    assert len(buckets) == 100
    assert buckets.take("host-9999", 0.0) > 0


async def refusals(running: Running, token: str, count: int) -> list[TrainctlError]:
    whoami = next(method for method in methods() if method.name == "WhoAmI")
    api = with_token(running, token)
    answers = await asyncio.gather(*(api.refusal(whoami, access_pb2.WhoAmIRequest()) for _ in range(count)))
    return [answer for answer in answers if answer is not None]


def test_who_calls_too_often_is_told_when_to_come_again_and_others_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=Limits(calls=Rate(0.5, 10))) as running:
            ann = await token_for(running, "ann", ("default", "viewer"))
            bob = await token_for(running, "bob", ("default", "viewer"))
            refused = await refusals(running, ann, 40)
            assert len(refused) >= 15
            for error in refused:
                assert isinstance(error, UnavailableError)
                assert (error.code, error.exit_code) == ("RATE_LIMITED", 7)
                assert 0 < error.retry_after_s <= 2.0
                assert "0.5 a second, 10 at once" in str(error)
            assert not await refusals(running, bob, 5)
            assert isinstance(refused[0], UnavailableError)
            await asyncio.sleep(refused[0].retry_after_s + 0.01)
            assert not await refusals(running, ann, 1)

    run(main)


def test_streams_of_a_caller_are_counted_and_given_back(tmp_path: Path) -> None:
    async def opened(running: Running, token: str) -> bool:
        request = job_pb2.WatchJobRequest(name="a")
        call = running.client.jobs.WatchJob(request, metadata=call_metadata(token), timeout=10)
        try:
            await call.read()
            calls.append(call)
            return await call.code() is None if call.done() else True
        except grpc.RpcError as error:
            limited = error_from_rpc(error)
            assert limited.code == "RATE_LIMITED"
            assert "holds 3 streams open, and may hold 3" in str(limited)
            return False

    async def main() -> None:
        async with serving(tmp_path, limits=Limits(streams=3)) as running:
            await running.client.call("CreateJob", create(spec()))
            ann = await token_for(running, "ann", ("default", "viewer"))
            assert [await opened(running, ann) for _ in range(4)] == [True, True, True, False]
            bob = await token_for(running, "bob", ("default", "viewer"))
            assert await opened(running, bob)
            calls[0].cancel()
            async with asyncio.timeout(5):
                while not await opened(running, ann):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()

    calls: list[grpc.aio.Call] = []
    run(main)


def test_a_flood_of_wrong_tokens_grows_neither_store_nor_memory_and_heartbeats_pass(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent()
            await running.client.call("CreateJob", create(spec()))
            await running.client.until_phase("a", "RUNNING")
            before = await newest(running)
            wrong = "tctl_0123abcd_" + "ab" * 24
            for _ in range(8):
                refused = await refusals(running, wrong, 100)
                assert len(refused) == 100
                assert {error.code for error in refused} <= {"UNAUTHENTICATED", "RATE_LIMITED"}
                acked = agent.acked.figures_sequence
                uid = (await running.client.job("a")).uid
                agent.report_figures(uid, acked + 1, sequence=acked + 1)
                await agent.until(lambda seen=acked: agent.acked.figures_sequence > seen)  # type: ignore[misc]
            assert sum(error.code == "RATE_LIMITED" for error in refused) >= 60
            records = (await own(running).by_name("ListAudit", access_pb2.ListAuditRequest(after=before))).records
            assert 1 <= len(records) <= 60
            assert {record.outcome for record in records} == {"UNAUTHENTICATED"}
            await agent.disconnect()

    async def newest(running: Running) -> int:
        records = (await own(running).by_name("ListAudit", access_pb2.ListAuditRequest())).records
        return int(records[-1].number)

    run(main)


def test_more_new_sessions_than_fit_are_told_to_come_later_and_then_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=Limits(sessions=Rate(0.5, 2))) as running:
            agents = [FakeAgent(running.client, f"node-{index}", 1) for index in range(6)]
            for agent in agents:
                await agent.register()
            for agent in agents:
                agent.connect()
            for agent in agents:
                await agent.until(lambda one=agent: one.acked.sequence > 0 or one.error is not None)  # type: ignore[misc]
            turned_away = [agent for agent in agents if agent.error is not None]
            assert len(turned_away) >= 2
            for agent in turned_away:
                assert agent.error is not None
                known = error_from_rpc(agent.error)
                assert isinstance(known, UnavailableError)
                assert known.code == "TOO_MANY_SESSIONS"
                assert 0 < known.retry_after_s <= 2.0
                pause_s = known.retry_after_s
            await asyncio.sleep(pause_s + 0.01)
            turned_away[0].connect()
            await turned_away[0].until(lambda: turned_away[0].acked.sequence > 0)
            for agent in agents:
                await agent.disconnect()

    run(main)


def test_a_spec_that_is_too_large_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            request = create(spec())
            request.job.spec.env["X"] = "x" * 300_000
            with pytest.raises(TrainctlError, match="expected at most 256 KiB, found 300"):
                await running.client.call("CreateJob", request)
            request.job.spec.env["X"] = "x" * 5_000_000
            with pytest.raises(TrainctlError, match=r"larger than max") as caught:
                await running.client.call("CreateJob", request)
            assert caught.value.code == "RESOURCE_EXHAUSTED"
            assert agent_pb2.RegisterRequest().node == ""

    run(main)
