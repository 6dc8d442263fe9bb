"""What the simulation found in the controller, each in its smallest form.

Without it bugs that cost a thousand seeds to find could come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from simulation.data_plane import MemoryFiles
from simulation.virtual_loop import run_virtually
from simulation.virtual_store import StoreClient, VirtualStore
from trainctl.controller import keys
from trainctl.controller.agents.agent import Agent, NodeMark, Registration
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.agents.session import ANSWER_EVERY_S, AgentSession
from trainctl.controller.domain.reconcile import request_cancel
from trainctl.controller.domain.submit import new_job
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.verbs import Call, Verbs
from trainctl.controller.leadership import Candidate, Leadership, find_leader, wait_vacant
from trainctl.controller.rpc.standby import StandbyServer
from trainctl.controller.standby import campaign
from trainctl.controller.store.port import Put, RangeResult, StoreFullError, StoreUnavailableError
from trainctl.core.clock import ManualClock
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import NodesSpec
from trainctl.core.system.faults import FaultPlan
from unit.domain.domain_sim import sim_job


class CountingStore(StoreClient):
    """Counts what is asked for."""

    reads = 0

    async def range(self, prefix: str, *, limit: int = 0, start_after: str = "") -> RangeResult:
        type(self).reads += 1
        return await super().range(prefix, limit=limit, start_after=start_after)


def test_a_standby_waits_for_the_leader_although_history_is_compacted() -> None:
    async def main() -> None:
        server = VirtualStore()
        first, second = StoreClient(server, "first"), CountingStore(server, "second")
        leadership = await Leadership.take(first, Candidate(holder="a", ttl_s=1000.0))
        await first.txn((), (Put("other", b"1"),))
        await first.compact(server.revision)
        leader = await find_leader(second)
        assert leader is not None
        waiting = asyncio.create_task(wait_vacant(second, leader))
        await asyncio.sleep(60.0)
        assert CountingStore.reads < 20, "it looks again now and then, not all the time"
        await leadership.resign(0.0)
        async with asyncio.timeout(0.1):
            await waiting
        server.close()

    run_virtually(main)


def test_a_standby_waits_while_the_store_is_full() -> None:
    async def main() -> None:
        server = VirtualStore()
        server.full = True

        async def ready() -> Candidate:
            return Candidate(holder="b")

        now_s, waiting = asyncio.get_running_loop().time, StandbyServer()
        turn = asyncio.create_task(campaign(StoreClient(server, "b"), ready, waiting, now_s=now_s))
        await asyncio.sleep(5.0)
        assert not turn.done()
        assert waiting.failed is not None, "whoever asks is told why nobody leads"
        assert isinstance(waiting.failed.error, StoreFullError)
        assert now_s() - waiting.failed.at_s < 1.0
        server.full = False
        async with asyncio.timeout(1.0):
            assert (await turn).epoch == 1
        assert server.get(keys.LEADER) is not None
        server.close()

    run_virtually(main)


async def registered(clock: ManualClock, *nodes: str) -> AgentRegistry:
    """A leader's registry with an agent on each of these nodes."""
    server = VirtualStore()
    leadership = await Leadership.take(StoreClient(server, "a"), Candidate(holder="a"))
    agents = AgentRegistry(clock.monotonic_s, settle_s=0.0)
    for node in nodes:
        await agents.register(leadership, Registration(node=node, slots=1))
    server.close()
    return agents


def test_an_agent_is_not_silent_while_what_it_said_is_dealt_with() -> None:
    async def main() -> None:
        clock = ManualClock(100.0)
        agents = await registered(clock, "n")
        (agent,) = agents.agents()

        def pass_time(seconds: float) -> None:
            for _ in range(int(seconds / 0.5)):
                clock.advance(0.5)
                agents.awake()

        with agents.hearing(agent):
            pass_time(60.0)
            view = agents.view().agent(agent.incarnation)
            assert view is not None
            assert view.last_heard_age_s == 0.0
        pass_time(2.0)
        view = agents.view().agent(agent.incarnation)
        assert view is not None
        assert view.last_heard_age_s == 2.0

    run_virtually(main)


def test_an_agent_that_reports_nothing_hears_all_the_same_that_somebody_leads() -> None:
    async def main() -> None:
        clock = ManualClock()
        session = AgentSession("n", 1, lambda _: None, clock.monotonic_s)
        answers = 0
        assert (await session.next()).WhichOneof("message") == "desired"  # type: ignore[union-attr]
        for beat in range(1, 41):
            clock.advance(0.25)
            session.took_observation(beat, 0.25)
            waiting = asyncio.ensure_future(session.next())
            await asyncio.sleep(0.01)
            answers += waiting.done()
            waiting.cancel()
        assert answers >= 40 * 0.25 / ANSWER_EVERY_S - 1

    run_virtually(main)


def test_a_job_that_is_found_before_its_creation_had_an_answer_is_taken_in_once(tmp_path: Path) -> None:
    async def main() -> None:
        server = VirtualStore()
        client = StoreClient(server, "a")
        leadership = await Leadership.take(client, Candidate(holder="a", ttl_s=1000.0))
        now_s = asyncio.get_running_loop().time
        book = JobBook(client, leadership, now_s=now_s, figures_folder=tmp_path, faults=FaultPlan())
        state, drafts = new_job("u1", sim_job(nodes=NodesSpec(), per_node=1), workdir="/none", now_s=now_s())
        client.link.lose_answers = 1
        creating = asyncio.create_task(book.create(state, drafts, compares=(), operations=()))
        await asyncio.sleep(0.5)
        found = await book.adopt(state.tenant, "u1")  # the same request, sent again
        assert found is not None
        await book.apply("u1", lambda s: request_cancel(s, now_s()))
        assert await creating is found
        assert book.entry("u1") is found
        assert found.journal.newest == 3
        server.close()

    run_virtually(main)


def put_together(store: StoreClient, leadership: Leadership, folder: Path) -> tuple[JobBook, AgentRegistry, Verbs]:
    now_s = asyncio.get_running_loop().time
    book = JobBook(store, leadership, now_s=now_s, figures_folder=folder, faults=FaultPlan())
    agents = AgentRegistry(now_s, settle_s=0.0)
    return book, agents, Verbs(book, agents, store, leadership, now_s, MemoryFiles())


def call(method: str, subject: str, request_id: str) -> Call:
    return Call(method=method, tenant=DEFAULT_TENANT, subject=subject, request_id=request_id, body=method.encode())


def test_the_mark_of_a_pin_does_not_go_with_the_unpin_before_it(tmp_path: Path) -> None:
    async def main() -> None:
        server = VirtualStore()
        client = StoreClient(server, "a")
        leadership = await Leadership.take(client, Candidate(holder="a", ttl_s=1000.0))
        book, agents, _ = put_together(client, leadership, tmp_path)
        files, now_s = MemoryFiles(), asyncio.get_running_loop().time
        verbs = Verbs(book, agents, client, leadership, now_s, files)
        state, drafts = new_job("u1", sim_job(nodes=NodesSpec(), per_node=1), workdir="/none", now_s=now_s())
        ref = CheckpointRef(uri="mem://u1/1/7", step=7, lineage=1, attempt="a", manifest_sha256="0")
        await book.create(replace(state, checkpoints=(ref,)), drafts, compares=(), operations=())
        await verbs.pin(call("Pin", state.name, "p1"), 7, pinned=True)
        changed = asyncio.Event()
        book.on_change(lambda before, after, events: changed.set())
        unpinning = asyncio.create_task(verbs.pin(call("Unpin", state.name, "u1"), 7, pinned=False))
        await changed.wait()
        client.link.delay_s = 0.2
        entry = await verbs.pin(call("Pin", state.name, "p2"), 7, pinned=True)
        await unpinning
        assert set(entry.state.pinned) == files.marked == {ref.uri}
        server.close()

    run_virtually(main)


def test_a_drain_whose_answer_was_lost_is_known_when_it_is_asked_for_again(tmp_path: Path) -> None:
    async def main() -> None:
        server = VirtualStore()
        client = StoreClient(server, "a")
        leadership = await Leadership.take(client, Candidate(holder="a", ttl_s=1000.0))
        _, agents, verbs = put_together(client, leadership, tmp_path)
        await agents.register(leadership, Registration(node="n", slots=1))
        client.link.lose_answers = 1
        with pytest.raises(StoreUnavailableError):
            await verbs.mark(call("Cordon", "n", "c1"), NodeMark(cordoned=True, draining=True))
        await verbs.mark(call("Cordon", "n", "c1"), NodeMark(cordoned=True, draining=True))
        (view,) = agents.view().agents
        assert view.draining
        server.close()

    run_virtually(main)


def test_short_times_in_which_nobody_is_heard_do_not_add_up_to_the_silence_of_one() -> None:
    async def main() -> None:
        clock = ManualClock(100.0)
        agents = await registered(clock, "one", "two")
        one, two = agents.agents()

        def hear(*heard: Agent) -> None:
            for agent in heard:
                with agents.hearing(agent):
                    pass

        def silence_s() -> float:
            view = agents.view().agent(two.incarnation)
            assert view is not None
            return view.last_heard_age_s

        hear(one, two)
        for _ in range(3):
            for _ in range(6):
                clock.advance(0.25)
                agents.awake()
            hear(one)
        assert silence_s() == 0.0, "for all that time nobody was heard"
        for _ in range(8):
            clock.advance(0.5)
            agents.awake()
            hear(one)
        assert silence_s() == 4.0, "and now it is this one"

    run_virtually(main)
