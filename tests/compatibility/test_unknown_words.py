"""A word, or a kind of message, that only another version knows: it costs nobody a worker, and people are told.

Without it the first word of a newer version could end workers in the middle of an upgrade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FileDescriptor

from compatibility.other_versions import UNKNOWN, OtherVersion, later_filters
from compatibility.words import LATER, Spot, spots, word_lists
from trainctl.agent.conversation import Node
from trainctl.agent.instructions import Instructions
from trainctl.agent.link import ControllerLink
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.agent.security.calling import PlainCalling
from trainctl.controller.domain.hang import frozen_limit_s
from trainctl.core.errors import TrainctlError
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.worker import Instruction, WorkerDesired, WorkerObserved, WorkerPhase
from trainctl.core.timeouts import Timeouts
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import access_pb2, agent_pb2, job_pb2, join_pb2, records_pb2
from trainctl.protos.version import WIRE_VERSION
from unit.agent.conversations import conversation
from unit.controller.controller_harness import FakeAgent, Running, create, obeyed, run, serving, spec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.domain_sim_nodes import outcome_of
from unit.generation_records import generation_record
from waiting import PATIENCE_S

SERVICES: Sequence[FileDescriptor] = (
    agent_pb2.DESCRIPTOR,
    job_pb2.DESCRIPTOR,
    access_pb2.DESCRIPTOR,
    join_pb2.DESCRIPTOR,
)
SAID = tuple(spots(agent_pb2.SessionRequest.DESCRIPTOR))
TOLD = tuple(spots(agent_pb2.SessionResponse.DESCRIPTOR))
OBEYED = pytest.mark.parametrize("spot", TOLD, ids=str)


def test_every_list_of_words_on_the_wire_is_found() -> None:
    """In both directions of a session; elsewhere there is none, so nothing else has to be decided."""
    found = {spot.words for spot in (*SAID, *TOLD)}
    assert {words.__name__ for words in found if words is not None} == {
        "WorkerPhase", "Phase", "StepAction", "Instruction", "Rung", "TransferKind",
    }  # fmt: skip
    sessions = ("SessionRequest", "SessionResponse")
    for file in SERVICES:
        for service in file.services_by_name.values():
            for method in service.methods:
                for message in (method.input_type, method.output_type):
                    assert message.name in sessions or not tuple(spots(message)), f"{service.name}.{method.name}"


def test_no_list_of_words_in_the_records_is_overlooked() -> None:
    """One that no message carried would be found by nobody."""
    assert word_lists() == {spot.words for spot in (*SAID, *TOLD)}


def test_an_unknown_word_keeps_its_spelling_and_is_no_member() -> None:
    word = Phase(LATER)
    assert (word.value, word.known, word in set(Phase), str(word)) == (LATER, False, False, LATER)
    assert word not in {Phase.COMPUTE, Phase.HELD}
    assert word == Phase(LATER)
    assert all(one.known for one in Phase)
    assert Phase("").known is False
    for text in ("two words", "\x1b[31m", "x" * 41, "\N{CYRILLIC SMALL LETTER A}"):
        with pytest.raises(ValueError, match="is not a valid Phase"):
            Phase(text)
    with pytest.raises(ValueError, match="is not a valid Instruction"):
        Instruction(LATER)


# What agents say


@pytest.mark.parametrize("spot", SAID, ids=str)
def test_a_later_agent_says_something_unknown(tmp_path: Path, spot: Spot, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever field it is in: the session goes on, the job goes on, and the log says it once."""

    async def body(running: Running) -> None:
        agent = await running.agent(slots=2)
        await running.client.call("CreateJob", create(spec(per_node=2)))
        before = await running.client.until_phase("a", "RUNNING")
        for number in (1, 2, 3):
            message = agent_pb2.SessionRequest(observed=observation(agent, number))
            spot.put(message, LATER)
            agent.send(**{spot.path[0]: getattr(message, spot.path[0])})
            await taken(agent, before.uid, number)
        job = await running.client.job("a")
        assert (job.status.phase, job.status.islands[0].generation, job.status.restarts) == ("RUNNING", 1, 0)
        shown = {worker.phase for worker in job.status.islands[0].workers}
        assert (LATER in shown) == (spot.path[-2:] == ("progress", "phase"))
        events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
        assert not [event for event in events if event.type.startswith(("worker.exited", "worker.lost", "fault"))]
        agent.observe()
        await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
        await running.client.until_phase("a", "CANCELLED")
        await agent.disconnect()

    in_controller(tmp_path, body)
    told = [record.getMessage() for record in caplog.records if LATER in record.getMessage()]
    assert len(told) == 1
    assert "node-0" in told[0]
    assert ".".join(spot.path[1:]) in told[0]


def test_a_later_agent_sends_another_kind_of_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(running: Running) -> None:
        agent = await running.agent()
        await running.client.call("CreateJob", create(spec(per_node=2)))
        job = await running.client.until_phase("a", "RUNNING")
        for number in (1, 2):
            agent._outgoing.put_nowait(agent_pb2.SessionRequest.FromString(UNKNOWN))
            await taken(agent, job.uid, number)
        assert (await running.client.job("a")).status.phase == "RUNNING"
        await agent.disconnect()

    in_controller(tmp_path, body)
    assert len([r for r in caplog.records if "a message of another kind" in r.getMessage()]) == 1


async def taken(agent: FakeAgent, job_uid: str, number: int) -> None:
    """What was sent so far was taken in: figures that came after it are acknowledged."""
    agent.report_figures(job_uid, number, sequence=number)
    await agent.until(lambda: agent.error is not None or agent.acked.figures_sequence >= number)
    assert agent.error is None, agent.error


def observation(agent: FakeAgent, number: int) -> agent_pb2.AgentObserved:
    report = StepReport(prepared_generation=1, lineage=1, applied_step=0)
    workers = [
        record_to_message(replace(one, report=report), records_pb2.WorkerObserved) for one in agent.workers.values()
    ]
    return agent_pb2.AgentObserved(sequence=100 + number, store_address="127.0.0.1:1234", workers=workers)


def in_controller(folder: Path, body: Any) -> None:
    async def main() -> None:
        async with serving(folder) as running:
            await body(running)

    run(main)


@pytest.mark.parametrize("word", [LATER, ""])
def test_a_worker_in_an_unknown_phase_is_never_judged_by_it(word: str) -> None:
    timeouts = Timeouts.for_job(sim_job(nodes=NodesSpec(), per_node=1))
    assert frozen_limit_s(Phase(word), 0.1, timeouts) is None
    assert frozen_limit_s(Phase.COMPUTE, 0.1, timeouts) is not None


def test_minutes_in_phases_that_nobody_knows_are_no_fault() -> None:
    """All workers of a job that trains say nothing but unknown words, and do not touch their pages."""
    job = Simulation(
        5, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2, steps=10**6), agents=2, slots=2, fault_rate=0
    )
    until_s = job.now_s + 60.0
    while job.now_s < until_s and not job.state.sole_island.entered:
        job.tick()
    record = job.state.sole_island.record
    assert record is not None
    for worker in job.cluster.workers():
        worker.frozen_since_s = job.now_s
        plainly = worker.observed

        def observed(now_s: float, plainly: Any = plainly) -> WorkerObserved:
            seen: WorkerObserved = plainly(now_s)
            progress = replace(seen.progress, phase=Phase(LATER))
            return replace(seen, phase=WorkerPhase(LATER), progress=progress)

        worker.observed = observed  # type: ignore[method-assign]
    until_s = job.now_s + 400.0
    while job.now_s < until_s:
        job.tick()
    assert job.state.sole_island.record == record
    assert job.state.phase.value == "RUNNING"


# What controllers say


@OBEYED
def test_a_later_controller_wants_something_unknown_of_one_worker(spot: Spot) -> None:
    """That worker keeps what it was told before; the others are told the newest."""
    reader = Instructions()
    reader.read([wanted(0, Instruction.STANDBY), wanted(1, Instruction.STANDBY)])
    newest = agent_pb2.SessionResponse(
        desired=agent_pb2.AgentDesired(workers=[wanted(0, Instruction.RUN), wanted(1, Instruction.RUN)])
    )
    spot.put(newest, LATER)
    told = {one.slot: one.instruction for one in reader.read(newest.desired.workers)}
    assert told == {0: Instruction.STANDBY, 1: Instruction.RUN}
    running = message_to_record(wanted(0, Instruction.STANDBY), WorkerDesired)
    (first, second) = reader.noted([obeyed(running, 1), obeyed(replace(running, slot=1), 2)])
    assert not second.notices
    for part in (LATER, ".".join(camel_path(spot)), "goes on with the former one", "(trainctl "):
        assert part in first.notices[-1]
    assert [one.slot for one in reader.read([wanted(0, Instruction.STOP)])] == [0]
    assert not reader.noted([first])[0].notices[1:]


@OBEYED
def test_a_worker_whose_first_instruction_is_unknown_is_not_begun(spot: Spot) -> None:
    reader = Instructions()
    message = agent_pb2.SessionResponse(desired=agent_pb2.AgentDesired(workers=[wanted(3, Instruction.STANDBY)]))
    spot.put(message, LATER)
    assert reader.read(message.desired.workers) == []
    (seen,) = reader.noted([])
    assert (seen.slot, seen.pid, seen.phase) == (3, 0, WorkerPhase.STARTING)
    assert "is not started" in seen.notices[0]


def camel_path(spot: Spot) -> list[str]:
    return ["WorkerDesired", *spot.path[2:]]


def wanted(slot: int, instruction: Instruction) -> records_pb2.WorkerDesired:
    record = generation_record(1, target_step=1, outcome=outcome_of(1, 1, 1))
    desired = WorkerDesired(
        job_uid="u", job_name="a", island="i", slot=slot, incarnation=7, instruction=instruction, generation=1,
        record=record if instruction is Instruction.RUN else None,
    )  # fmt: skip
    return record_to_message(desired, records_pb2.WorkerDesired)


def test_people_hear_of_an_instruction_that_the_agent_does_not_know(tmp_path: Path) -> None:
    """The real connection of an agent to a controller of another version: one event, nobody ended, then it goes on."""
    strange = asyncio.Event()
    strange.set()

    def later(data: bytes) -> bytes:
        message = agent_pb2.SessionResponse.FromString(data)
        for worker in message.desired.workers:
            if strange.is_set() and worker.slot == 0 and worker.instruction == Instruction.RUN:
                worker.instruction = LATER
        return message.SerializeToString()

    def filters(path: str) -> Any:
        return (lambda data: data), later if path.endswith("/Session") else (lambda data: data)

    async def body(running: Running) -> None:
        with OtherVersion(running.controller.address, filters) as other:
            agent = LinkedAgent(other.address, running.client.metadata)
            linked = asyncio.create_task(agent.link.run())
            await running.client.call("CreateJob", create(spec(per_node=2)))
            event = await noticed(running)
            assert f"found {LATER!r}" in event.message
            job = await running.client.job("a")
            assert job.status.restarts == 0
            assert {worker.state for worker in job.status.islands[0].workers} == {"ACTIVE"}
            strange.clear()
            await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await running.client.until_phase("a", "CANCELLED")
            linked.cancel()
            await asyncio.gather(linked, return_exceptions=True)

    in_controller(tmp_path, body)


async def noticed(running: Running) -> job_pb2.Event:
    request = job_pb2.WatchEventsRequest(name="a")
    call = running.client.jobs.WatchEvents(request, metadata=running.client.metadata, timeout=PATIENCE_S)
    async for response in call:
        if response.event.type == "worker.notice":
            found: job_pb2.Event = response.event
            return found
    raise AssertionError("no notice came")


class LinkedAgent:
    """A real agent's connection, with workers that do at once whatever they are told."""

    def __init__(self, address: str, metadata: Any) -> None:
        self.desired: Sequence[WorkerDesired] = ()
        registration = agent_pb2.RegisterRequest(
            node="node-0", address="127.0.0.1", pid=1, slots=2, version="test", wire_version=WIRE_VERSION, device="cpu"
        )
        node = Node(
            observe=lambda: tuple(obeyed(desired, 1000 + desired.slot) for desired in self.desired),
            store_address=lambda: "127.0.0.1:1",
            set_desired=self._take,
            forget_jobs=lambda _: None,
        )
        token = dict(metadata)["authorization"].removeprefix("Bearer ")
        self.link = ControllerLink(
            targets=(address,), calling=PlainCalling(lambda: token), registration=registration, node=node,
            forget_all=self._forget, figures=FiguresOutbox(), reports=ReportsOutbox(), metrics=AgentMetrics(),
        )  # fmt: skip

    def _take(self, desired: Sequence[WorkerDesired]) -> None:
        self.desired = desired

    async def _forget(self) -> None:
        raise AssertionError("the controller declared this agent's life over")


def test_an_agent_passes_over_another_kind_of_message_and_slows_down_where_it_is_not_understood() -> None:
    with_controller = conversation()
    with_controller.hear(agent_pb2.SessionResponse.FromString(UNKNOWN))
    pauses_s = [with_controller.next_pause_s() for _ in range(30)]
    with_controller.hear(agent_pb2.SessionResponse(desired=agent_pb2.AgentDesired(epoch=1)))
    assert with_controller.next_pause_s() > 0.1, "told what to do, but not that it was understood"
    assert max(pauses_s) > 0.3
    with_controller.hear(agent_pb2.SessionResponse(ack=agent_pb2.Ack(sequence=1)))
    assert with_controller.next_pause_s() <= 0.3


def test_an_agent_of_another_wire_ends_at_its_start_and_one_that_has_workers_keeps_them(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        with OtherVersion(running.controller.address, later_filters, wire="2") as other:
            agent = LinkedAgent(other.address, running.client.metadata)
            with pytest.raises(TrainctlError, match="expected wire version 1") as raised:
                await agent.link.run()
            assert raised.value.code == "VERSION_MISMATCH"
        with_workers = conversation()
        with_workers.registered(agent_pb2.RegisterResponse(agent_incarnation=7))
        assert not with_workers.judge(raised.value), "waits and asks again"

    in_controller(tmp_path, body)
