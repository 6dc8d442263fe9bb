"""An agent that can never talk to its controllers ends and says why, however gRPC puts it.

Without it an agent of a wrong version would try for ever in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from grpc import aio

from trainctl.agent.link import ControllerLink
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.core.errors import TrainctlError
from trainctl.protos.tls_failures import TlsFailedError
from trainctl.protos.v1 import agent_pb2


class Unanswered:
    """Implements ``Calling``: every call ends with ``code``, and the probe knows why."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code

    @asynccontextmanager
    async def open(self, target: str) -> AsyncIterator[Any]:
        async def register(*_: object, **__: object) -> None:
            raise aio.AioRpcError(self.code, aio.Metadata(), aio.Metadata(), "what gRPC met on the way")

        yield MagicMock(Register=register)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def outdated(self, stub: object) -> None:
        await asyncio.Event().wait()

    async def why(self, target: str) -> TrainctlError | None:
        return TlsFailedError(f"{target} expects TLS, and this side spoke in clear")


def link_of(calling: Unanswered) -> ControllerLink:
    return ControllerLink(
        targets=("127.0.0.1:1",), calling=calling, registration=agent_pb2.RegisterRequest(node="n"),
        node=MagicMock(), forget_all=MagicMock(), figures=FiguresOutbox(), reports=ReportsOutbox(),
        metrics=AgentMetrics(),
    )  # fmt: skip


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_controller_that_hangs_up_or_says_nothing_is_looked_at_for_tls(code: grpc.StatusCode) -> None:
    async def main() -> None:
        link = link_of(Unanswered(code))
        async with asyncio.timeout(20.0):
            with pytest.raises(TlsFailedError, match="expects TLS"):
                await link.run()

    asyncio.run(main())


class Ending(Unanswered):
    """Implements ``Calling``: a call that is cancelled says only that nobody answers, as one of gRPC may."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE)
        self.called = asyncio.Event()

    @asynccontextmanager
    async def open(self, target: str) -> AsyncIterator[Any]:
        async def register(*_: object, **__: object) -> None:
            self.called.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise aio.AioRpcError(self.code, aio.Metadata(), aio.Metadata(), "refused") from None

        yield MagicMock(Register=register)

    async def why(self, target: str) -> TrainctlError | None:
        return None


def test_an_agent_that_is_told_to_end_does_not_call_again() -> None:
    async def main() -> None:
        calling = Ending()
        link = link_of(calling)
        running = asyncio.create_task(link.run())
        await calling.called.wait()
        calling.called.clear()
        running.cancel()
        async with asyncio.timeout(20.0):
            with pytest.raises(asyncio.CancelledError):
                await running
        assert not calling.called.is_set()

    asyncio.run(main())
