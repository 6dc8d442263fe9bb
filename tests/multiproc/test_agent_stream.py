"""Without it figures and reports could be lost while no controller listens, or an agent obey a leader of the past."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from pathlib import Path

import pytest

from multiproc.agent_support.controller import (
    AgentProcess,
    FakeController,
    agent_and_controller,
    exists,
    mismatch,
    stale,
    unauthenticated,
    worker,
)
from trainctl.core.records.worker import Instruction, WorkerPhase
from waiting import until_async

pytestmark = pytest.mark.multiproc


def test_no_figure_and_no_report_is_lost_while_the_controller_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(behaviour="figures"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            controller.want(worker(instruction=Instruction.RUN, generation=1, behaviour="figures"))
            await until_async(lambda: len(controller.figures) > 5)
            pid = controller.workers()[0].pid
            controller.acknowledging = False  # what arrives now is lost with the controller
            count = len(controller.figures)
            await until_async(lambda: len(controller.figures) > count + 5)
            await controller.stop()
            del controller.figures[count:]
            last = controller.workers()[0].progress.step
            controller.acknowledging = True
            controller.checkpoints.clear()
            await controller.start()
            await until_async(lambda: len(controller.figures) > last + 20)
            steps = list(dict.fromkeys(each.step for each in controller.figures))
            assert steps == list(range(1, len(steps) + 1))
            assert controller.workers()[0].pid == pid
            assert [hello.agent_incarnation for hello in controller.hellos] == [101, 101]
            assert controller.hellos[-1].epoch == controller.epoch

    asyncio.run(scenario())


def test_a_former_leader_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        controller = FakeController()
        controller.epoch = 7
        async with agent_and_controller(tmp_path, controller=controller):
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            newest = controller.version
            controller.want(epoch=6)
            seen = controller.observations
            await until_async(lambda: controller.observations > seen + 1)
            assert controller.observed.desired_version == newest
            assert controller.phase(1) is WorkerPhase.READY
            controller.want(worker(), worker(1, 2), epoch=8)
            await until_async(lambda: controller.phase(2) is WorkerPhase.READY)

    asyncio.run(scenario())


def test_a_life_declared_over_ends_its_workers_and_begins_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (agent, controller):
            controller.want(worker(behaviour="stubborn"))
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            pid = controller.workers()[0].pid
            await controller.stop()
            controller.desired = ()
            controller.refuse_session = stale()
            await controller.start()
            await until_async(lambda: len(controller.registrations) == 2)
            assert not exists(pid)
            await until_async(lambda: controller.hellos[-1].agent_incarnation == 102)
            await until_async(lambda: not controller.workers())
            assert not agent.ended()

    asyncio.run(scenario())


@pytest.mark.parametrize(("error", "code"), [(mismatch(), "VERSION_MISMATCH"), (unauthenticated(), "UNAUTHENTICATED")])
def test_a_refused_agent_says_why_and_ends(tmp_path: Path, error: Exception, code: str) -> None:
    async def scenario() -> None:
        controller = FakeController()
        controller.refuse = error  # type: ignore[assignment]
        async with agent_and_controller(tmp_path, controller=controller) as (agent, _):
            await until_async(agent.ended)
            assert agent.process.returncode > 0
            assert f"({code})" in agent.stderr()
            assert "hint: do something" in agent.stderr()
            await until_async(lambda: not agent.family())

    asyncio.run(scenario())


def test_token_and_version_go_with_every_call(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")

    async def scenario() -> None:
        async with agent_and_controller(tmp_path, "--token-file", str(token)) as (_, controller):
            assert controller.metadata["authorization"] == "Bearer secret"
            assert controller.metadata["x-trainctl-wire"] == "1"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nothing", "No such file"), ("pipe", "it is a named pipe"), ("binary", "not a token")],
)
def test_a_token_file_that_holds_none_is_one_clear_error(tmp_path: Path, name: str, problem: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\x00")

    async def scenario() -> None:
        agent = AgentProcess(tmp_path / "node-0", 1, "--token-file", str(tmp_path / name))
        await until_async(agent.ended)
        assert agent.process.returncode == 5
        assert f"{name} cannot be read: {problem}" in agent.stderr()
        assert "Traceback" not in agent.stderr()

    asyncio.run(scenario())


def test_an_orphan_stops_its_workers_in_order_and_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        controller = FakeController()
        controller.orphan_timeout_s = 0.5
        async with agent_and_controller(tmp_path, controller=controller) as (agent, _):
            controller.want(worker())
            await until_async(lambda: controller.phase(1) is WorkerPhase.READY)
            await controller.stop()
            await until_async(agent.ended)
            assert agent.process.returncode == 0
            assert "ended with exit code 0" in agent.stderr()
            assert "no controller for 0.5 s" in agent.stderr()

    asyncio.run(scenario())


def test_metrics(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_and_controller(tmp_path) as (_, controller):
            controller.want(worker(), worker(1, 2, behaviour="exit"))
            await until_async(
                lambda: controller.phase(1) is WorkerPhase.READY and controller.phase(2) is WorkerPhase.EXITED
            )
            url = f"http://{controller.registrations[0].metrics_address}/metrics"
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
            for line in (
                'trainctl_agent_workers{job_name="job",phase="ready"} 1.0',
                'trainctl_agent_worker_exits_total{job_name="job",kind="error"} 1.0',
                'trainctl_agent_worker_starts_total{job_name="job"} 2.0',
                "trainctl_agent_figures_pending 0.0",
            ):
                assert line in text
            assert "trainctl_agent_log_bytes_total " in text

    asyncio.run(scenario())
