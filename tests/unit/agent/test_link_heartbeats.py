"""An agent beats when it has had nothing else to say for a heartbeat, and then always.

Without it a thousand agents with news would beat on top of it, just when the controller has most to do; or one that
says nothing would be taken for lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

import pytest

from simulation.virtual_loop import run_virtually
from trainctl.agent.conversation import Node
from trainctl.agent.link import ControllerLink
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.core.errors import TrainctlError
from trainctl.protos.v1 import agent_pb2

HEARTBEAT_S = 1.0


class Listening:
    """Implements ``Calling``: a controller that takes everything in, and notes when observations come."""

    def __init__(self) -> None:
        self.observed_s: list[float] = []

    @asynccontextmanager
    async def open(self, target: str) -> AsyncIterator[Any]:
        async def register(*_: object, **__: object) -> agent_pb2.RegisterResponse:
            return agent_pb2.RegisterResponse(agent_incarnation=1, heartbeat_s=HEARTBEAT_S)

        yield MagicMock(Register=register, Session=lambda **_: self)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def outdated(self, stub: object) -> None:
        await asyncio.Event().wait()

    async def why(self, target: str) -> TrainctlError | None:
        return None

    async def write(self, message: agent_pb2.SessionRequest) -> None:
        if message.WhichOneof("message") == "observed":
            self.observed_s.append(round(asyncio.get_running_loop().time(), 6))

    def cancel(self) -> bool:
        return True

    async def __aiter__(self) -> AsyncIterator[agent_pb2.SessionResponse]:
        while True:
            await asyncio.sleep(0.1)
            yield agent_pb2.SessionResponse(ack=agent_pb2.Ack())


async def _nothing_to_end() -> None:
    return


def observed_s(monkeypatch: pytest.MonkeyPatch, news_s: list[float], until_s: float) -> list[float]:
    """When an agent with news at these times says something."""
    controller = Listening()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr("trainctl.agent.link.time.monotonic", loop.time)
        node = Node(
            observe=lambda: (), store_address=lambda: "127.0.0.1:1", set_desired=lambda _: None,
            forget_jobs=lambda _: None,
        )  # fmt: skip
        link = ControllerLink(
            targets=("127.0.0.1:1",), calling=controller, registration=agent_pb2.RegisterRequest(node="n"),
            node=node, forget_all=_nothing_to_end, figures=FiguresOutbox(), reports=ReportsOutbox(),
            metrics=AgentMetrics(),
        )  # fmt: skip
        running = asyncio.create_task(link.run())
        for at_s in news_s:
            loop.call_later(at_s, link.changed)
        await asyncio.sleep(until_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main)
    return controller.observed_s


def test_who_has_nothing_to_say_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    found = observed_s(monkeypatch, [], 5.5)
    assert len(found) == 6
    assert all(later - earlier == pytest.approx(HEARTBEAT_S) for earlier, later in pairwise(found))


def test_who_has_news_does_not_beat_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    news_s = [0.3 * number for number in range(1, 18)]  # the last at 5.1
    found = observed_s(monkeypatch, news_s, 7.5)
    assert len(found) == 1 + len(news_s) + 2
    assert found[-1] - found[-2] == found[-2] - found[-3] == pytest.approx(HEARTBEAT_S)
