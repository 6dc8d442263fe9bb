"""Reports of checkpoints on their way through a controller: what is current is told; a deposed one tells nothing.

Without it a job could go back to a checkpoint that was never decided on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from trainctl.controller import keys
from trainctl.controller.store.port import Delete
from trainctl.core.errors import FencedError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2, records_pb2
from unit.controller.checkpointed_jobs import listed, started
from unit.controller.controller_harness import FakeAgent, run, serving


def reports(
    agent: FakeAgent, job: job_pb2.Job, step: int, *, generation: int = 1, read_back: bool = False, error: str = ""
) -> None:
    ref = CheckpointRef(uri=f"/nowhere/{step}", step=step, lineage=1, attempt=f"{step:016x}", manifest_sha256="0")
    report = CheckpointReport(
        job_uid=job.uid,
        island="island-0",
        generation=generation,
        step=step,
        lineage=1,
        ref=ref,
        read_back=read_back,
        error=error,
    )
    agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))


def kept(agent: FakeAgent) -> list[int]:
    """The steps of the attempts that its one worker, rank 0, is told to keep."""
    (one,) = agent.desired
    return [int(name, 16) for name in one.kept_checkpoints]


def test_what_has_become_current_is_told_to_rank_0(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running)
            assert kept(agent) == []
            for step in (10, 20, 30, 40):
                reports(agent, job, step)
            await agent.until(lambda: kept(agent)[-1:] == [40])
            assert kept(agent) == [20, 30, 40]
            reports(agent, job, 50, generation=0)
            reports(agent, job, 60)
            await agent.until(lambda: kept(agent)[-1:] == [60])
            assert kept(agent) == [30, 40, 60], "a generation that is none makes nothing current"
            events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            assert [event.reason for event in events if event.type == "checkpoint.rejected"] == ["OldGeneration"]

    run(main)


def test_with_one_to_keep_the_one_before_is_told_until_the_newest_was_read_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running, keep=1)

            async def told(kept_steps: list[int], read: int) -> None:
                await agent.until(lambda: kept(agent) == kept_steps)
                assert [int(one.read_back or "0", 16) for one in agent.desired] == [read]

            reports(agent, job, 10)
            await told([10], 0)
            reports(agent, job, 20)
            await told([10, 20], 20)
            reports(agent, job, 20, read_back=True)
            await told([20], 0)
            reports(agent, job, 30)
            await told([20, 30], 30)
            reports(agent, job, 30, read_back=True, error="param of w is corrupt")
            await told([20], 0)
            answer = await listed(running.client)
            assert [one.step for one in answer.checkpoints] == [20]
            assert [(one.ref.step, one.reason) for one in answer.refused] == [(30, "param of w is corrupt")]
            events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            noted = [(event.type, event.reason) for event in events if event.type.startswith("checkpoint.re")]
            assert noted == [("checkpoint.read_back", "Whole"), ("checkpoint.rejected", "Damaged")]

    run(main)


def test_a_deposed_controller_makes_nothing_current_tells_nothing_and_acknowledges_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running)
            reports(agent, job, 10)
            await agent.until(lambda: kept(agent) == [10])
            before_it = agent._sequence
            store: Any = running.controller.leadership._store
            before = (await store.range(keys.JOBS)).items
            await store.txn((), (Delete(keys.LEADER),))
            reports(agent, job, 20)
            agent.observe()
            with pytest.raises(FencedError):
                await asyncio.wait_for(running.controller.failed, 10)
            assert (await store.range(keys.JOBS)).items == before
            assert kept(agent) == [10]
            assert agent.acked.sequence <= before_it, "the agent keeps the report for the one that leads"
            assert [one.step for one in (await listed(running.client)).checkpoints] == [10]

    run(main)
