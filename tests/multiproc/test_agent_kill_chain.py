"""Without it a dead agent could leave workers behind that hold devices and train beside those that replaced them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from multiproc.agent_support.controller import agent_and_controller, runs, worker
from trainctl.core.records.worker import WorkerPhase
from waiting import until_async

pytestmark = pytest.mark.multiproc


def test_killing_the_agent_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker(), worker(1, 2, behaviour="stubborn"))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.READY)
            os.kill(controller.workers()[0].pid, signal.SIGSTOP)
            assert len(agent.family()) == 5
            agent.process.kill()
            await until_async(lambda: not agent.family())

    asyncio.run(scenario())


def test_killing_the_agent_and_the_fork_server_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            server = agent.server_pid()
            os.kill(server, signal.SIGSTOP)  # it cannot tidy up
            agent.process.kill()
            await until_async(lambda: not agent.family())

    asyncio.run(scenario())


def test_killing_the_fork_server_is_a_loss_of_the_workers_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker(), worker(1, 2))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.READY)
            former = agent.server_pid()
            os.kill(former, signal.SIGKILL)
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.EXITED)
            assert [each.exit_code for each in controller.workers()] == [-signal.SIGKILL] * 2
            assert not any(runs(each.pid) for each in controller.workers())
            controller.want(worker(incarnation=3), worker(1, 4))
            await until_async(lambda: controller.phase(3) is controller.phase(4) is WorkerPhase.READY)
            assert agent.server_pid() != former
            assert len(controller.registrations) == 1

    asyncio.run(scenario())


def test_a_worker_asked_of_a_dying_fork_server_is_reported_as_not_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            server = agent.server_pid()
            os.kill(server, signal.SIGSTOP)
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.STARTING)
            os.kill(server, signal.SIGKILL)
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            error = controller.workers()[0].error
            assert error is not None
            assert error.code == "WORKER_NOT_STARTED"
            controller.want(worker(incarnation=2))
            await until_async(lambda: controller.phase(2) is WorkerPhase.READY)

    asyncio.run(scenario())


def test_killing_the_store_brings_a_new_one_elsewhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path, real_store=True, preload="torch") as (agent, controller):
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            former = controller.observed.store_address
            keep = {agent.pid, agent.server_pid(), controller.workers()[0].pid}
            (store,) = agent.family().keys() - keep
            os.kill(store, signal.SIGKILL)
            await until_async(lambda: controller.observed.store_address not in ("", former))
            assert controller.phase(1) is WorkerPhase.READY

    asyncio.run(scenario())


def test_what_a_worker_started_itself_ends_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            before = set(agent.family())
            controller.want(worker(behaviour="grandchild"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            assert len(set(agent.family()) - before) == 2
            os.kill(controller.workers()[0].pid, signal.SIGKILL)
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            await until_async(lambda: set(agent.family()) == before)

    asyncio.run(scenario())
