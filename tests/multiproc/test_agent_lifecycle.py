"""Without it an agent could lose a worker's exit, run two lives of a slot, or leave processes when it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from multiproc.agent_support.controller import (
    AgentProcess,
    FakeController,
    agent_and_controller,
    exists,
    maps,
    worker,
)
from trainctl.agent.logs.files import log_path
from trainctl.core.records.part import TransferKind
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Instruction, WorkerPhase
from trainctl.core.system.memory_folder import FAILURE_DOMAIN_VARIABLE, MEMORY_VARIABLE
from waiting import until_async

pytestmark = pytest.mark.multiproc


def test_a_worker_lives_through_its_instructions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            assert (controller.registrations[0].slots, controller.registrations[0].node) == (2, "node-0")
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            pid = controller.workers()[0].pid
            controller.want(worker(instruction=Instruction.PREPARE, generation=4))
            await until_async(lambda: (found := controller.find(1)) and found.report)
            controller.want(worker(instruction=Instruction.RUN, generation=4, behaviour=""))
            await until_async(lambda: controller.phase(1) is WorkerPhase.RUNNING)
            await until_async(lambda: controller.checkpoints)
            await until_async(lambda: controller.observed.desired_version == controller.version)
            found = controller.workers()[0]
            assert (found.pid, found.generation, found.progress.phase) == (pid, 4, Phase.COMPUTE)
            assert found.report is not None
            assert found.report.prepared_generation == 4
            controller.want(worker(instruction=Instruction.STOP))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            assert controller.workers()[0].exit_code == 0
            controller.want()
            await until_async(lambda: not controller.workers())

    asyncio.run(scenario())


def test_an_exit_is_reported_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        controller = FakeController()
        controller.heartbeat_s = 30.0  # so that only the exit itself can bring the news
        async with agent_and_controller(tmp_path, controller=controller):
            delays_s = []
            for incarnation in range(1, 6):
                controller.want(worker(incarnation=incarnation))
                await until_async(lambda which=incarnation: controller.phase(which) is WorkerPhase.READY)  # type: ignore[misc]
                start_s = time.monotonic()
                os.kill(controller.workers()[0].pid, signal.SIGKILL)
                await until_async(lambda which=incarnation: controller.phase(which) is WorkerPhase.EXITED)  # type: ignore[misc]
                delays_s.append(time.monotonic() - start_s)
                found = controller.find(incarnation)
                assert found is not None
                assert (found.exit_code, found.error) == (-signal.SIGKILL, None)
            assert max(delays_s) < controller.heartbeat_s / 3

    asyncio.run(scenario())


def test_how_far_a_save_is_is_told_until_its_worker_dies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="saving"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            found = controller.workers()[0]
            moving = found.progress.transfer
            assert moving is not None
            assert (moving.kind, moving.step, moving.done_bytes, moving.total_bytes) == (TransferKind.SAVE, 7, 3, 9)
            assert 60.0 <= moving.age_s < 120.0
            os.kill(found.pid, signal.SIGKILL)
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            ended = controller.workers()[0].progress
            assert (ended.phase, ended.transfer) == (Phase.READY, None)

    asyncio.run(scenario())


def test_workers_of_a_node_have_numbers_and_a_new_one_takes_that_of_the_one_lost(tmp_path: Path) -> None:
    def local_rank(slot: int, incarnation: int) -> str:
        log = log_path(tmp_path / "node-0" / "logs", "uid-1", slot, incarnation)
        found = re.search(r"local rank (\S+)", log.read_text())
        return found[1] if found else ""

    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(0, 1), worker(1, 2))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.READY)
            controller.want(worker(0, 1, instruction=Instruction.KILL), worker(1, 2))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            controller.want(worker(0, 3), worker(1, 2))
            await until_async(lambda: controller.phase(3) is WorkerPhase.READY)
        numbers = [local_rank(0, 1), local_rank(1, 2), local_rank(0, 3)]
        assert sorted(numbers[:2]) == ["0", "1"]
        assert numbers[2] == numbers[0]

    asyncio.run(scenario())


def test_a_frozen_worker_is_seen_and_killed_before_its_slot_is_filled_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(), worker(1, 2))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.READY)
            pid = controller.workers()[0].pid
            os.kill(pid, signal.SIGSTOP)
            await until_async(lambda: (found := controller.find(1)) and found.progress.alive_age_s >= 2.0)
            await until_async(lambda: controller.workers()[1].progress.alive_age_s < 2.0)
            controller.want(worker(instruction=Instruction.KILL), worker(1, 2))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            assert controller.workers()[0].progress.alive_age_s >= 2.0
            controller.want(worker(incarnation=3), worker(1, 2))
            await until_async(lambda: controller.phase(3) is WorkerPhase.READY)
            assert controller.find(1) is None
            assert controller.phase(2) is WorkerPhase.READY

    asyncio.run(scenario())


def test_a_superseded_life_ends_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="stubborn"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            old = controller.workers()[0].pid
            controller.want(worker(incarnation=2))
            await until_async(lambda: controller.phase(2) is WorkerPhase.READY)
            assert not exists(old)

    asyncio.run(scenario())


def test_a_stubborn_worker_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            for incarnation, last in ((1, (worker(1, 1, Instruction.STOP, grace_s=0.2),)), (2, ())):
                controller.want(worker(1, incarnation, behaviour="stubborn", grace_s=0.2))
                await until_async(lambda which=incarnation: controller.phase(which) is WorkerPhase.READY)  # type: ignore[misc]
                pid = controller.workers()[0].pid
                controller.want(*last)
                await until_async(lambda gone=pid: not exists(gone))  # type: ignore[misc]

    asyncio.run(scenario())


def test_errors_carry_the_last_lines(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="raise"), worker(1, 2, behaviour="exit"))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.EXITED)
            raised, exited = controller.workers()
            assert raised.error is not None
            assert (raised.exit_code, raised.error.type, raised.error.step) == (1, "ValueError", 3)
            assert raised.error.hint == "ask for less"
            assert raised.error.log_tail[-1].endswith("as raise"), "what it printed of the error is not said twice"
            assert exited.error is not None
            assert (exited.exit_code, exited.error.code) == (3, "WORKER_EXIT")
            assert exited.error.log_tail[-1] == "last words, without a newline"

    asyncio.run(scenario())


def test_a_worker_that_was_never_started_counts_as_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(instruction=Instruction.KILL))
            await until_async(lambda: controller.phase(1) is WorkerPhase.EXITED)
            assert controller.workers()[0].pid == 0

    asyncio.run(scenario())


def test_sigterm_says_goodbye_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker(behaviour="grandchild"), worker(1, 2))
            await until_async(lambda: controller.phase(1) is controller.phase(2) is WorkerPhase.READY)
            assert len(agent.family()) == 6
            agent.process.terminate()
            await until_async(agent.ended)
            assert agent.process.returncode == 0
            assert controller.goodbyes == ["SIGTERM received"]
            await until_async(lambda: not agent.family())

    asyncio.run(scenario())


def test_a_second_signal_does_not_wait_for_a_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker(behaviour="stubborn", grace_s=300.0))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            agent.process.send_signal(signal.SIGINT)
            await until_async(lambda: controller.goodbyes)
            agent.process.send_signal(signal.SIGINT)
            await until_async(agent.ended)
            assert agent.process.returncode == 0

    asyncio.run(scenario())


def test_only_one_agent_a_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            second = AgentProcess(agent.folder, controller.port)
            second.log = tmp_path / "node-0.stderr"
            await until_async(second.ended)
            assert second.process.returncode == 6
            assert f"another agent (process {agent.pid}) already runs in {agent.folder}" in second.stderr()
            assert not agent.ended()

    asyncio.run(scenario())


def test_torch_only_in_the_workers_and_grpc_only_in_the_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        preload = "torch,torch.distributed"
        async with agent_and_controller(tmp_path, preload=preload, real_store=True) as (agent, controller):
            assert re.fullmatch(r"127\.0\.0\.1:\d+", controller.observed.store_address)
            controller.want(worker(behaviour="modules"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            log = agent.folder / "logs" / "uid-1" / "0-1.log"
            await until_async(lambda: log.exists() and "modules=" in log.read_text())
            threads, modules = re.search(r"threads=(\d+) modules=(\S+)", log.read_text()).groups()  # type: ignore[union-attr]
            assert threads == "3"  # the main one and the bridge's two: the fork server had one
            assert "torch" in modules.split(",")
            assert not {"grpc", "google"} & set(modules.split(","))
            assert "libtorch" in maps(agent.server_pid())
            assert "cygrpc" not in maps(agent.server_pid())
            assert "torch" not in maps(agent.pid)
            assert "cygrpc" in maps(agent.pid)

    asyncio.run(scenario())


def test_stacks_on_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            os.kill(controller.workers()[0].pid, signal.SIGUSR1)
            log = agent.folder / "logs" / "uid-1" / "0-1.log"
            await until_async(lambda: "most recent call first" in log.read_text() and "in serve" in log.read_text())
            assert controller.phase(1) is WorkerPhase.READY

    asyncio.run(scenario())


def test_a_worker_hears_of_its_nodes_failure_domain_and_of_the_disk_that_its_job_wants(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = tmp_path / "disk"
        options = ("--failure-domain", "rack-4", "--snapshot-dir", str(disk))
        async with agent_and_controller(tmp_path, *options) as (agent, controller):
            assert controller.registrations[0].failure_domain == "rack-4"
            snapshots = {"snapshots": {"intervalSteps": 5, "place": "disk"}}
            spec = {"env": {"FAKE_WORKER": "environment"}, "checkpoint": snapshots}
            controller.want(replace(worker(), spec={"spec": spec}))
            log = log_path(agent.folder / "logs", "uid-1", 0, 1)
            await until_async(lambda: log.exists() and "environment=" in log.read_text())
            found = log.read_text()
            assert f"{FAILURE_DOMAIN_VARIABLE}=rack-4" in found
            assert f"{MEMORY_VARIABLE}={disk}" in found
            agent.process.terminate()
            await until_async(agent.ended)
            assert disk.is_dir()

    asyncio.run(scenario())
