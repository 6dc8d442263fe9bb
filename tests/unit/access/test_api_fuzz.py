"""Whatever comes in at the API: an answer or one clear error, and soon; and the controller lives.

Without it one strange request could end the controller for all.

The same examples each time. ``TRAINCTL_FUZZ_EXAMPLES=2000`` draws new ones, an eighth as many for each method, and
prints the seed that ``TRAINCTL_FUZZ_SEED`` draws them again with (``make chaos``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.controller.access.limits import Limits, Rate
from trainctl.protos.v1 import access_pb2, agent_pb2, job_pb2
from trainctl.protos.version import AUTH_HEADER, WIRE_HEADER
from unit.access.api import Api, methods, own, path_of, token_for, with_token
from unit.access.messages import any_message, any_request
from unit.controller.controller_harness import FakeAgent, Running, create, serving, spec
from unit.domain.fuzz_effort import Effort

R = TypeVar("R")
METHODS = [method for method in methods() if method.name not in ("Join", "Locate")]
BUGS = ("INTERNAL", "UNKNOWN")
STREAM_SAYS = 0.3
"""Seconds that a stream which does not end is listened to."""
_usual = Effort.of(os.environ)
bounded = Effort(examples=max(20, _usual.examples // 8), seed=_usual.seed)
few = Effort(examples=max(6, _usual.examples // 50), seed=_usual.seed)


class Loop:
    """An event loop in a thread of its own, with a controller in it: ``hypothesis`` itself is synchronous."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="controller")
        self._thread.start()
        self._stack = AsyncExitStack()
        self.running: Running = self.do(self._open(folder))

    async def _open(self, folder: Path) -> Running:
        plenty = Limits(calls=Rate(1e6, 1e6), strangers=Rate(1e6, 1e6), sessions=Rate(1e6, 1e6))
        running = await self._stack.enter_async_context(serving(folder, limits=plenty))
        await running.client.call("CreateJob", create(spec()))
        self.agent = await running.agent()
        return running

    def do(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20.0)

    def close(self) -> None:
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Loop]:
    if bounded.seed is not None:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nfuzz: {_usual}", flush=True)
    loop = Loop(tmp_path_factory.mktemp("controller"))
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    bad = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert not bad, "\n".join(f"{record.getMessage()} {record.exc_info}" for record in bad[:3])


async def answer(api: Api, path: str, data: bytes, streams: tuple[bool, bool], metadata: Any = None) -> str:
    """The status code; of a stream that goes on, OK."""
    try:
        async with asyncio.timeout(STREAM_SAYS if streams[1] else 10.0):
            await api.raw(path, data, streams=streams, metadata=metadata)
    except grpc.RpcError as error:
        code = error.code().name
        assert code not in BUGS, f"{path}: {error.details()}"  # noqa: PT017
        return code
    except TimeoutError:
        assert streams[1], f"{path} does not answer"
    except asyncio.CancelledError:
        return "CANCELLED"
    return "OK"


async def alive(running: Running) -> None:
    await own(running).by_name("GetVersion", job_pb2.GetVersionRequest())
    assert not running.controller.failed.done()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_any_bytes_and_any_values(loop: Loop, method: Any) -> None:
    @bounded
    @given(any_request(method.input_type))
    def check(data: bytes) -> None:
        streams = (method.client_streaming, method.server_streaming)
        loop.do(answer(own(loop.running), path_of(method), data, streams))

    check()
    loop.do(alive(loop.running))


@bounded
@given(st.sampled_from(METHODS), st.booleans(), st.booleans(), st.binary(max_size=10))
def test_a_caller_that_takes_a_method_for_another_kind(
    loop: Loop, method: Any, requests: bool, answers: bool, data: bytes
) -> None:
    loop.do(answer(own(loop.running), path_of(method), data, (requests, answers)))
    loop.do(alive(loop.running))


_KEYS = st.from_regex(r"\A[a-z][a-z0-9_.-]{0,20}\Z").filter(lambda key: not key.startswith("grpc-"))
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


@bounded
@given(
    st.sampled_from(METHODS),
    st.lists(st.tuples(_KEYS.filter(lambda key: not key.endswith("-bin")), _VALUES), max_size=5),
)
def test_any_metadata(loop: Loop, method: Any, metadata: list[tuple[str, str]]) -> None:
    streams = (method.client_streaming, method.server_streaming)
    code = loop.do(answer(own(loop.running), path_of(method), b"", streams, tuple(metadata)))
    assert code in ("UNAUTHENTICATED", "OK", "CANCELLED", "INVALID_ARGUMENT"), code


@bounded
@given(_VALUES, st.sampled_from(("", "1", "2", "x" * 500)))
def test_any_token(loop: Loop, token: str, wire: str) -> None:
    metadata = ((AUTH_HEADER, token), (WIRE_HEADER, wire))
    code = loop.do(answer(own(loop.running), "trainctl.v1.JobService/GetVersion", b"", (False, False), metadata))
    assert code in ("UNAUTHENTICATED", "INVALID_ARGUMENT"), code


def test_metadata_that_is_absent_or_huge(loop: Loop) -> None:
    for method in METHODS:
        streams = (method.client_streaming, method.server_streaming)
        assert loop.do(answer(own(loop.running), path_of(method), b"", streams, ())) == "UNAUTHENTICATED"
    huge = ((AUTH_HEADER, "Bearer " + "x" * 100_000),)
    code = loop.do(answer(own(loop.running), "trainctl.v1.JobService/GetVersion", b"", (False, False), huge))
    assert code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED")
    loop.do(alive(loop.running))


def test_deadlines_that_are_over_before_they_begin(loop: Loop) -> None:
    async def at_once(method: Any) -> str:
        stub = loop.running.client.channel.unary_unary(
            f"/{path_of(method)}", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            await stub(b"", metadata=loop.running.client.metadata, timeout=1e-4)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    for method in METHODS:
        assert loop.do(at_once(method)) not in BUGS
    loop.do(alive(loop.running))


def test_a_method_that_does_not_exist(loop: Loop) -> None:
    for path in ("trainctl.v1.JobService/Nothing", "trainctl.v1.Nothing/GetJob", "a/b"):
        assert loop.do(answer(own(loop.running), path, b"", (False, False))) == "UNIMPLEMENTED"


async def said(agent: FakeAgent, message: agent_pb2.SessionRequest) -> None:
    """An agent that is known says it, about a worker that it has; then it goes on, or is told why not."""
    kind = message.WhichOneof("message")
    for worker in agent.desired[:1]:
        for each in message.observed.workers if kind == "observed" else ():
            each.job_uid, each.slot, each.incarnation = worker.job_uid, worker.slot, worker.incarnation
        if kind in ("figures", "checkpoint", "recovery"):
            getattr(message, kind).job_uid = worker.job_uid
    if kind is not None:
        agent.send(**{kind: getattr(message, kind)})
    agent.observe()
    number = agent._sequence
    assert agent._task is not None
    acknowledged = asyncio.create_task(agent.until(lambda: agent.acked.sequence >= number))
    await asyncio.wait((acknowledged, agent._task), timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
    acknowledged.cancel()
    if not agent._task.done():
        return
    assert agent.error is None or agent.error.code().name not in BUGS, agent.error
    await agent.register()
    agent.acked.Clear()
    agent.connect()


@few
@given(any_message(agent_pb2.SessionRequest.DESCRIPTOR))
def test_whatever_an_agent_says_in_its_session(loop: Loop, message: agent_pb2.SessionRequest) -> None:
    loop.do(said(loop.agent, message))
    loop.do(alive(loop.running))


def test_whoever_may_little_may_not_do_more_with_random_bytes(loop: Loop) -> None:
    viewer = loop.do(token_for(loop.running, "viewer", ("research", "viewer")))
    api = with_token(loop.running, viewer)

    async def state() -> Any:
        audit = await own(loop.running).by_name("ListTokens", access_pb2.ListTokensRequest())
        jobs = await own(loop.running).by_name("ListJobs", job_pb2.ListJobsRequest())
        return len(audit.tokens), sorted((job.uid, job.status.phase) for job in jobs.jobs)

    before = loop.do(state())

    @bounded
    @given(st.data())
    def check(data: st.DataObject) -> None:
        method = data.draw(st.sampled_from(METHODS))
        streams = (method.client_streaming, method.server_streaming)
        loop.do(answer(api, path_of(method), data.draw(any_request(method.input_type)), streams))

    check()
    assert loop.do(state()) == before
