"""Reports of checkpoints on their way through a controller: what is current is told; a deposed one tells nothing."""

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
from unit.controller.controller_harness import FakeAgent, run, serving
from unit.controller.test_checkpoint_verbs import listed, started


def reports(agent: FakeAgent, job: job_pb2.Job, step: int, *, generation: int = 1) -> None:
    ref = CheckpointRef(uri=f"/nowhere/{step}", step=step, lineage=1, attempt=f"{step:016x}", manifest_sha256="0")
    report = CheckpointReport(job_uid=job.uid, island="island-0", generation=generation, step=step, lineage=1, ref=ref)
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
