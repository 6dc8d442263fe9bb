from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from multiproc.agent_support.controller import FakeController, agent_and_controller, until, worker
from trainctl.core.records.worker import Instruction, WorkerPhase
from trainctl.protos.v1 import agent_pb2

pytestmark = pytest.mark.multiproc


def ask(
    controller: FakeController, request_id: str, *, tail: int = 0, follow: bool = False, cancel: bool = False
) -> None:
    request = agent_pb2.LogRequest(
        request_id=request_id, job_uid="uid-1", tail_lines=tail, follow=follow, cancel=cancel, slots=[0]
    )
    controller.outgoing.put_nowait(agent_pb2.SessionResponse(log_request=request))


def ended(controller: FakeController, request_id: str) -> bool:
    return any(chunk.end for chunk in controller.chunks if chunk.request_id == request_id)


def test_the_tail_of_ended_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="exit"))
            await until(lambda: controller.phase(1) is WorkerPhase.EXITED)
            controller.want()
            ask(controller, "all")
            await until(lambda: ended(controller, "all"))
            assert controller.lines("all")[-1].endswith("Z last words, without a newline")
            assert {chunk.incarnation for chunk in controller.chunks if chunk.lines} == {1}

    asyncio.run(scenario())


def test_a_follower_sees_every_line_once_and_heartbeats_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            ask(controller, "follow", follow=True)
            controller.want(worker(behaviour="babble"))
            await until(lambda: any("[line cut]" in line for line in controller.lines("follow")))
            numbers = [int(line.split()[2]) for line in controller.lines("follow") if " line " in line]
            left_out = [line for line in controller.lines("follow") if "left out" in line]
            assert numbers == sorted(set(numbers))
            assert left_out or numbers == list(range(20_000))
            ask(controller, "tail", tail=10)
            await until(lambda: ended(controller, "tail"))
            assert len(controller.lines("tail")) == 10
            ask(controller, "follow", cancel=True)
            controller.want(worker(instruction=Instruction.STOP))
            await until(lambda: controller.phase(1) is WorkerPhase.EXITED)

    asyncio.run(scenario())
