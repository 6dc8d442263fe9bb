"""Log lines from the file to the reader, whatever breaks in between: agent, relay and reader are the real ones.

Without it lines of logs could be lost or doubled without a word.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import cast

import pytest

from trainctl.agent.logs.files import LogFile
from trainctl.agent.logs.store import LogStore
from trainctl.agent.logs.streams import LogStreams
from trainctl.agent.state import WorkerKey
from trainctl.cli.streams.log_reader import LogReader
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.agents.session import AgentSession
from trainctl.controller.rpc.log_relay import LogQuery, LogRelay
from trainctl.protos.v1 import agent_pb2

Line = tuple[int, int, str]
NODE = "node-0"


class Way:
    """One agent, one controller, one reader; each step of the way is taken when the test says so."""

    def __init__(self, folder: Path, *, tail: int) -> None:
        self.store = LogStore(folder)
        self.files: dict[tuple[int, int], LogFile] = {}
        self.written: list[Line] = []
        self.shown: list[Line] = []
        self.reader = LogReader(uid="u", tail=tail)
        self._streams = LogStreams(self.store, lambda: None)
        self._session = self._new_session()
        self._late: list[tuple[AgentSession, agent_pb2.LogChunk]] = []
        self._start_controller()

    async def write(self, life: tuple[int, int], count: int) -> None:
        key = WorkerKey(job_uid="u", slot=life[0], incarnation=life[1])
        file = self.files.setdefault(life, LogFile(self.store.path_of(key), max_bytes=10_000, max_old=50))
        texts = [f"{len(self.written) + index}" for index in range(count)]
        self.written += [(*life, text) for text in texts]
        done = asyncio.Event()
        self.store.append(key, file, texts, done.set)
        await done.wait()

    async def send(self, count: int) -> None:
        """Lets the agent read its requests and send some chunks."""
        while self._session._log_requests:
            self._streams.handle(self._session._log_requests.popleft())
        settled = asyncio.Event()
        self.store.append(WorkerKey(job_uid="other", slot=0, incarnation=1), _Nothing(), [], settled.set)
        await settled.wait()  # what was asked of the files before is answered now
        for _ in range(count):
            chunk = self._streams.take()
            if chunk is not None:
                self.relay.chunk(self._session, chunk)

    def break_stream(self, rng: random.Random) -> None:
        """The agent's connection ends with chunks on the way: lost, or read by the controller later."""
        old, self._session = self._session, self._new_session()
        sent = [chunk for _ in range(rng.randrange(6)) if (chunk := self._streams.take()) is not None]
        self._late += [(old, chunk) for chunk in sent[: rng.randrange(len(sent) + 1)]]  # a stream loses its end only
        self._streams.clear()
        if rng.random() < 0.5:
            self.relay.session_closed(old)
            self.relay.session_opened(self._session)
        else:
            self.relay.session_opened(self._session)
            self.relay.session_closed(old)

    def arrive_late(self) -> None:
        for session, chunk in self._late:
            self.relay.chunk(session, chunk)
        self._late.clear()

    async def read(self, count: int) -> None:
        for _ in range(count):
            answer = await self._queue.next(0.0)
            if answer is not None:
                for chunk in self.reader._new(answer):
                    self.shown += [(chunk.slot, chunk.incarnation, line) for line in chunk.lines]

    def restart_controller(self) -> None:
        """All connections end, and all that the controller had on the way is gone."""
        self._session = self._new_session()
        self._streams.clear()
        self._late.clear()
        self._start_controller()

    def _start_controller(self) -> None:
        self.relay = LogRelay(cast("AgentRegistry", self), random.Random(1))
        query = LogQuery(job_uid="u", tail_lines=self.reader.tail, follow=True)
        self._queue = self.relay.open(query, self.reader.positions, self.reader.begun)

    def sessions(self) -> tuple[AgentSession, ...]:
        return (self._session,)

    @staticmethod
    def _new_session() -> AgentSession:
        return AgentSession(NODE, 7, lambda _: None, time.monotonic)


class _Nothing(LogFile):
    def __init__(self) -> None:
        """Writes nowhere."""

    def append(self, lines: object) -> None:  # type: ignore[override]
        """Takes nothing."""


@pytest.mark.parametrize("seed", range(12))
def test_each_line_is_shown_once_and_in_order_whatever_breaks(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def scenario() -> None:
        way = Way(tmp_path, tail=rng.choice([1, 5, 300]))
        lives = [(0, 1), (1, 2)]
        for life in lives:
            await way.write(life, rng.randrange(20))
        before = list(way.written)
        await way.send(3)
        await way.read(3)
        for _ in range(60):
            what = rng.choice(["write", "write", "send", "read", "break", "late", "restart", "life"])
            if what == "write":
                await way.write(rng.choice(lives), rng.choice([1, 3, 450]))
            elif what == "send":
                await way.send(rng.randrange(5))
            elif what == "read":
                await way.read(rng.randrange(5))
            elif what == "break":
                way.break_stream(rng)
            elif what == "late":
                way.arrive_late()
            elif what == "restart":
                way.restart_controller()
            elif way.reader.begun:
                lives.append((rng.randrange(2), 10 + len(lives)))
        way.arrive_late()
        for _ in range(len(way.written) // 100 + 20):
            await way.send(10)
            await way.read(10)
        await way.store.close()
        assert way.reader.begun == {NODE}
        for life in lives:
            expected = [line for line in way.written if line[:2] == life]
            shown = [line for line in way.shown if line[:2] == life]
            assert shown == expected[len(expected) - len(shown) :]
            # Only what was there at first may be cut off, by the tail that was asked for.
            assert len(expected) - len(shown) <= len([line for line in before if line[:2] == life])

    asyncio.run(scenario())
