"""A new leader: what it knows of the one before, and what the jobs' histories say of it.

Without it a fail-over could start a recovery that nothing needs.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trainctl.controller import keys, term
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.run_dir import RunDir
from trainctl.controller.store.port import Put, StoreFullError
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec

MANY = 40


async def changes(running: Running, name: str) -> list[job_pb2.Event]:
    """Its events of a new leader; the history has no gap, and its times do not go back."""
    events = list((await running.client.call("ListEvents", job_pb2.ListEventsRequest(name=name))).events)
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert [event.time_s for event in events] == sorted(event.time_s for event in events)
    return [event for event in events if event.type == "leader.changed"]


async def until_told(running: Running, name: str, count: int) -> list[job_pb2.Event]:
    async with asyncio.timeout(10):
        while len(found := await changes(running, name)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


def test_each_job_that_was_there_is_told_once_of_each_new_leader(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent(slots=1)
            call = running.client.call
            await call("CreateJob", create(spec("runs")))
            before = await running.client.until_phase("runs", "RUNNING")
            await call("CreateJob", create(spec("ended", per_node=2)))
            await call("CancelJob", job_pb2.CancelJobRequest(name="ended"))
            await running.client.until_phase("ended", "CANCELLED")
            for number in range(MANY):
                await call("CreateJob", create(spec(f"waits-{number}")))
            assert await changes(running, "runs") == []
            await agent.disconnect()
        for epoch in (2, 3):
            async with serving(tmp_path) as running:
                for name in ("runs", *(f"waits-{number}" for number in range(MANY))):
                    told = await until_told(running, name, epoch - 1)
                    assert [event.fields["epoch"] for event in told] == [str(e) for e in range(2, epoch + 1)]
                    assert told[-1].epoch == epoch
                    assert told[-1].fields["former_epoch"] == str(epoch - 1)
                    assert told[-1].fields["former_leader"] == told[-1].fields["leader"]
                    assert float(told[-1].fields["vacant_s"]) < 10.0
                told = await changes(running, "runs")
                assert "workers go on without a leader" in told[-1].message
                assert "workers" not in (await changes(running, "waits-0"))[-1].message
                agent.client = running.client
                agent.connect()
                await agent.until(lambda: bool(agent.desired))
                assert len(await changes(running, "runs")) == epoch - 1
                assert await changes(running, "ended") == []
                await running.client.call("CreateJob", create(spec(f"new-{epoch}")))
                await running.client.until(f"new-{epoch}", lambda job: job.status.reason == "WaitingForCapacity")
                assert await changes(running, f"new-{epoch}") == []
                await agent.disconnect()
                after = await running.client.job("runs")
                assert after.status.islands[0].generation == before.status.islands[0].generation

    run(main)


def test_a_leader_signs_regularly_and_a_full_store_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term, "REMEMBER_EVERY_S", 0.01)

    async def full(now_s: float) -> None:
        raise StoreFullError("no room")

    async def main() -> None:
        async with serving(tmp_path) as running:
            leadership = running.controller.leadership
            begun_s, sighting = leadership.term.seen_s, RunDir(tmp_path).sighting_file
            async with asyncio.timeout(10):
                while leadership.term.seen_s <= begun_s:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            stored = await leadership._store.get(keys.TERM)
            assert stored is not None
            assert begun_s < keys.decode(stored.value)["seenS"] <= leadership.term.seen_s
            leadership.sign = full  # type: ignore[method-assign]
            sighting.unlink()
            async with asyncio.timeout(10):
                while not sighting.exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not running.controller.failed.done()

    run(main)


def test_steps_of_the_leader_before_are_marked_until_an_agent_reports(tmp_path: Path) -> None:
    """A standby takes over: it has no file of figures, and the store knows the last step that it happened to hold."""

    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent()
            uid = (await running.client.call("CreateJob", create(spec()))).job.uid
            await running.client.until_phase("a", "RUNNING")
            agent.report_figures(uid, 1, 2, 3)
            shown = (await running.client.until("a", lambda job: job.status.step == 3)).status
            assert (shown.figures_stale, shown.step_stale) == (False, False)
            assert shown.figures_as_of_s > shown.start_time_s
            await agent.disconnect()
        shutil.rmtree(tmp_path / "figures")
        async with serving(tmp_path) as running:
            before = (await running.client.job("a")).status
            assert (before.step_stale, before.figures_stale) == (True, True)
            assert before.step < 3
            assert 0.0 < before.figures_as_of_s <= shown.figures_as_of_s
            asked = await running.client.call("ExplainJob", job_pb2.ExplainJobRequest(name="a"))
            assert any("its agents have not reported to this leader yet" in line for line in asked.sentences)
            agent.client = running.client
            agent.workers = {
                key: replace(worker, progress=replace(worker.progress, step=5)) for key, worker in agent.workers.items()
            }
            agent._obey = lambda: None  # type: ignore[method-assign]  # its workers go on as they are
            watching = asyncio.create_task(running.client.until("a", lambda job: not job.status.step_stale))
            agent.connect()
            told = (await watching).status
            assert (told.step, told.figures_stale) == (5, True), "the workers' step comes before the figures"
            agent.report_figures(uid, 6, sequence=2)
            after = (await running.client.until("a", lambda job: not job.status.figures_stale)).status
            assert after.step == 6
            assert after.figures_as_of_s > told.figures_as_of_s
            await agent.disconnect()

    run(main)


def test_a_leader_writes_down_for_the_next_one_that_it_led(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        first = await Leadership.take(store, Candidate(holder="first", address="a:1", now_s=100.0))
        assert first.former is None
        await first.sign(130.0)
        second = await Leadership.take(store, Candidate(holder="second", now_s=500.0))
        assert second.former is not None
        assert (second.former.holder, second.former.address, second.former.seen_s) == ("first", "a:1", 130.0)
        await first.resign(400.0)
        await second.resign(510.0)
        third = await Leadership.take(store, Candidate(holder="third", now_s=600.0))
        assert third.former is not None
        assert (third.former.holder, third.former.epoch, third.former.seen_s) == ("second", 2, 510.0)
        await store.txn((), (Put(keys.EPOCH, keys.encode(4)),))  # a version that writes nothing down led
        fifth = await Leadership.take(store, Candidate(holder="fifth", now_s=700.0))
        assert fifth.former is not None
        assert (fifth.former.epoch, fifth.former.holder, fifth.former.seen_s) == (4, "", 0.0)
        sixth = await Leadership.take(store, Candidate(holder="sixth", now_s=900.0, watched=4, watched_ago_s=2.0))
        assert sixth.former is not None
        assert sixth.former.seen_s == 700.0, "it watched another one"
        seventh = await Leadership.take(store, Candidate(holder="seventh", now_s=950.0, watched=6, watched_ago_s=2.0))
        assert seventh.former is not None
        assert seventh.former.seen_s == 948.0
        await store.close()

    run(main)
