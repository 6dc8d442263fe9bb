"""Agents of one machine that get their fork servers from one: what dies with whom, and what each has of its own.

Without it the end of one agent on a machine could take the workers of another.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from multiproc.agent_support.controller import ROOT, AgentProcess, FakeController, maps, runs, worker
from trainctl.controller.cluster.fork_server import SharedForkServer
from trainctl.core.records.worker import WorkerPhase
from trainctl.core.system.unix_socket import listen
from waiting import until_async

pytestmark = pytest.mark.multiproc
PATHS = os.pathsep.join(
    str(ROOT / part) for part in ("protos", "parallel", "checkpoint", "controller", "agent", "tests")
)


class Shared:
    """A shared fork server that has nothing preloaded."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / ("long-" * 30) / "fork-server.sock"
        self.socket.parent.mkdir()
        with listen(self.socket) as listener:
            descriptor = str(listener.fileno())
            command = ["--listener", descriptor, "--parent", str(os.getpid()), "--preload", "json"]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainctl.agent.forkserver", *command],
                pass_fds=(listener.fileno(),),
                env=os.environ | {"PYTHONPATH": PATHS, "OF_THE_SHARED_ONE": "1"},
            )

    @property
    def forks(self) -> set[int]:
        """Those that it forked and has not reaped."""
        return children(self.process.pid)


class Node:
    """An agent with a controller of its own."""

    def __init__(self, agent: AgentProcess, controller: FakeController) -> None:
        self.agent, self.controller = agent, controller

    @property
    def server(self) -> int:
        """The fork server that is up, as the agent says; 0 before there is one."""
        return int((re.findall(r"fork server (\d+) is up", self.agent.stderr()) or ["0"])[-1])

    async def start_worker(self, incarnation: int = 1, behaviour: str = "") -> int:
        """Its process id, when it is ready."""
        self.controller.want(worker(incarnation=incarnation, behaviour=behaviour))
        await until_async(lambda: self.controller.phase(incarnation) is WorkerPhase.READY)
        found = self.controller.find(incarnation)
        assert found is not None
        return found.pid


def children(pid: int) -> set[int]:
    return {int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@contextmanager
def shared_server(folder: Path) -> Iterator[Shared]:
    shared = Shared(folder)
    try:
        yield shared
    finally:
        shared.process.kill()
        shared.process.wait()


@asynccontextmanager
async def node(folder: Path, socket: Path) -> AsyncIterator[Node]:
    controller = FakeController()
    await controller.start()
    agent = AgentProcess(folder, controller.port, "--fork-server", str(socket))
    found = Node(agent, controller)
    try:
        await until_async(lambda: controller.observed.store_address or agent.ended())
        yield found
    except BaseException:
        print(agent.stderr())
        raise
    finally:
        agent.process.kill()
        agent.process.wait()
        await controller.stop()
        await until_async(lambda: not runs(found.server) and not agent.family())


def test_each_agent_gets_one_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with (
                node(tmp_path / "node-0", shared.socket) as one,
                node(tmp_path / "node-1", shared.socket) as other,
            ):
                assert shared.forks == {one.server, other.server}
                first, second = await one.start_worker(), await other.start_worker()
                assert first in children(one.server)
                assert second in children(other.server)
                one.agent.process.kill()
                await until_async(lambda: not runs(one.server) and not runs(first))
                await until_async(lambda: shared.forks == {other.server})
                assert runs(second)

    asyncio.run(scenario())


def test_a_frozen_fork_ends_with_its_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with node(tmp_path / "node-0", shared.socket) as one:
                pid = await one.start_worker(behaviour="stubborn")
                for process in (pid, one.server):
                    os.kill(process, signal.SIGSTOP)
                one.agent.process.kill()
                await until_async(lambda: not runs(one.server) and not runs(pid))
                await until_async(lambda: not shared.forks)

    asyncio.run(scenario())


def test_a_fork_that_dies_is_replaced_from_the_same_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with node(tmp_path / "node-0", shared.socket) as one:
                pid, former = await one.start_worker(), one.server
                os.kill(former, signal.SIGKILL)
                await until_async(lambda: one.controller.phase(1) is WorkerPhase.EXITED)
                assert not runs(pid)
                await one.start_worker(incarnation=2)
                assert shared.forks == {one.server} != {former}

    asyncio.run(scenario())


def test_the_end_of_the_shared_server_ends_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with node(tmp_path / "node-0", shared.socket) as one:
                pid, former = await one.start_worker(), one.server
                shared.process.kill()
                shared.process.wait()
                os.kill(pid, signal.SIGUSR1)  # whoever serves it still reads what it says
                await until_async(
                    lambda: "most recent call first" in one.agent.folder.joinpath("logs/uid-1/0-1.log").read_text()
                )
                assert runs(former)
                os.kill(former, signal.SIGKILL)
                await until_async(lambda: one.controller.phase(1) is WorkerPhase.EXITED)
                await one.start_worker(incarnation=2)
                assert one.server in children(one.agent.pid)
                assert "no fork server at" in one.agent.stderr()
                one.agent.process.kill()
                await until_async(lambda: not runs(one.server))

    asyncio.run(scenario())


def test_an_orphaned_fork_ends_with_its_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with node(tmp_path / "node-0", shared.socket) as one:
                pid = await one.start_worker(behaviour="stubborn")
                shared.process.kill()
                shared.process.wait()
                one.agent.process.kill()
                await until_async(lambda: not runs(one.server) and not runs(pid))

    asyncio.run(scenario())


def test_a_frozen_shared_server_holds_up_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainctl.agent.forkserver import client

    monkeypatch.setattr(client, "_SHARED_UP_WITHIN_S", 0.2)

    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            os.kill(shared.process.pid, signal.SIGSTOP)
            mine = client.ForkServerClient(
                preload=("json",), shared=shared.socket, on_change=lambda: None, on_restart=lambda: None
            )
            task = asyncio.create_task(mine.run())
            await asyncio.wait_for(mine.wait_up(), 30)
            assert mine.pid in children(os.getpid())
            task.cancel()
            await mine.close()

    asyncio.run(scenario())


def test_environment_folder_and_output_are_the_agents(tmp_path: Path) -> None:
    async def scenario() -> None:
        with shared_server(tmp_path) as shared:
            async with node(tmp_path / "node-0", shared.socket) as one:
                pid = await one.start_worker(behaviour="environment")
                log = one.agent.folder / "logs" / "uid-1" / "0-1.log"
                await until_async(lambda: "environment=" in log.read_text())
                text = log.read_text()
                assert f"TEST_AGENT_TAG={one.agent.folder}" in text
                assert "OF_THE_SHARED_ONE" not in text
                assert os.readlink(f"/proc/{pid}/cwd") == os.readlink(f"/proc/{one.agent.pid}/cwd")
                assert os.readlink(f"/proc/{one.server}/fd/2") == str(one.agent.log)

    asyncio.run(scenario())


def test_the_controllers_one_has_torch_and_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)

    async def scenario() -> None:
        shared = SharedForkServer(tmp_path)
        try:
            async with node(tmp_path / "node-0", shared.socket) as one:
                (its,) = {found for found in children(os.getpid()) if one.server in children(found)}
                assert len(os.listdir(f"/proc/{its}/task")) == 1
                assert "libtorch" in maps(one.server)
                assert "threads; forking" not in one.agent.stderr()
                shared.close()
                assert not shared.socket.exists()
                assert runs(one.server)
        finally:
            shared.close()

    asyncio.run(scenario())
    assert "Error" not in (tmp_path / "fork-server.log").read_text()
