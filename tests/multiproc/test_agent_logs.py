"""Without it people would get logs of workers with lines missing or doubled, and reading them could stop heartbeats."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from multiproc.agent_support.controller import FakeController, agent_and_controller, worker
from trainctl.core.records.worker import Instruction, WorkerPhase
from trainctl.protos.v1 import agent_pb2
from waiting import until_async

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


def numbered(controller: FakeController, request_id: str) -> list[tuple[int, str]]:
    """All lines that came, with the numbers that their chunks give them."""
    chunks = [chunk for chunk in controller.chunks if chunk.request_id == request_id]
    return [(number, text) for chunk in chunks for number, text in enumerate(chunk.lines, chunk.first_line)]


def test_the_tail_of_ended_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="exit"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            controller.want()
            ask(controller, "all")
            await until_async(lambda: ended(controller, "all"))
            assert controller.lines("all")[-1].endswith("Z last words, without a newline")
            assert {chunk.incarnation for chunk in controller.chunks if chunk.lines} == {1}

    asyncio.run(scenario())


def test_a_follower_sees_every_line_once_and_heartbeats_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            ask(controller, "follow", follow=True)
            controller.want(worker(behaviour="babble"))
            await until_async(lambda: any("[line cut]" in line for line in controller.lines("follow")))
            lines = numbered(controller, "follow")
            assert [number for number, _ in lines] == sorted({number for number, _ in lines})
            printed = {number: int(text.split()[2]) for number, text in lines if " line " in text}
            assert len(printed) > 1000
            # What a slow reader missed is missing in the numbers, too: each line has the number it has in the file.
            assert len({number - line for number, line in printed.items()}) == 1
            ask(controller, "tail", tail=10)
            await until_async(lambda: ended(controller, "tail"))
            assert len(controller.lines("tail")) == 10
            ask(controller, "follow", cancel=True)
            controller.want(worker(instruction=Instruction.STOP))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)

    asyncio.run(scenario())
