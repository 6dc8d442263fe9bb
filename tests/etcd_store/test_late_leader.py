"""A leader is frozen right before it changes something, is followed, and wakes up: it changes nothing any more.

Without it a controller that slept could cancel, remove or overwrite what belongs to the next one.

Not in the store, not at agents, not on storage. It is frozen at the named fault points by SIGSTOP.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.store_history import overwritten_events, read_history, stale_writes
from etcd_store.controllers import ControllerProcess
from etcd_store.leaders import client_of, leader_of
from etcd_store.running import run
from etcd_store.servers import EtcdCluster
from multiproc.armed_faults import ArmedFaults, fault
from trainctl.checkpoint.manifest.names import PIN
from trainctl.core.errors import TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2, records_pb2
from unit.controller.controller_harness import Client, FakeAgent, create, spec
from unit.controller.saved_jobs import save
from waiting import until_async


@dataclass(slots=True)
class Pair:
    """The controller that is frozen at a point, and the other one; their jobs' folders are the same."""

    folder: Path
    late: ControllerProcess
    other: ControllerProcess

    async def frozen(self) -> None:
        """Until it is."""
        await until_async(self._is_stopped)

    def _is_stopped(self) -> bool:
        assert self.late.process is not None
        return Path(f"/proc/{self.late.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    async def heir(self) -> Client:
        """The other one, once it leads."""
        return await client_of(await leader_of([self.other]))

    async def wake(self) -> None:
        """Lets the frozen one go on, until it stands by."""
        before = self.late.log.count("controller stands by")
        self.late.send(signal.SIGCONT)
        await until_async(lambda: self.late.log.count("controller stands by") > before)


@pytest.fixture
def pair(etcd: EtcdCluster, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Starts two controllers, the first of which leads and freezes at a point."""
    started: list[ControllerProcess] = []

    def make(point: str, **where: str) -> Pair:
        faults = ArmedFaults(tmp_path / "faults", [fault(point, "stop", **where)])
        flags = ("--jobs", str(tmp_path / "jobs"))
        store = etcd.address(prefix=f"/{tmp_path.name}")
        late = ControllerProcess(tmp_path / "late", store, flags=flags, environment=faults.environment)
        other = ControllerProcess(tmp_path / "other", store, flags=flags)
        started.extend((late, other))
        late.start()
        return Pair(tmp_path, late, other)

    yield make
    for one in started:
        if one.process is not None:
            one.kill()


@asynccontextmanager
async def running_job(both: Pair) -> AsyncIterator[tuple[Client, FakeAgent, job_pb2.Job]]:
    """A job that runs under the one that will be frozen; the other one stands by."""
    client = await client_of(await leader_of([both.late]))
    both.other.start()
    agent = FakeAgent(client, "node-0", 2)
    await agent.register()
    agent.connect()
    await client.call("CreateJob", create(spec()))
    yield client, agent, await client.until_phase("a", "RUNNING")
    await agent.disconnect()
    batches = await read_history(both.other.store)
    assert stale_writes(batches) == []
    assert overwritten_events(batches) == []


def exists(path: str | Path) -> bool:
    return Path(path).exists()


def folders_in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Files by name: which one, and what is in it."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


async def given_up(call: Awaitable[Any]) -> None:
    """A call that a frozen controller does not answer."""
    with pytest.raises((TrainctlError, TimeoutError)):
        await call


async def follow(both: Pair, agent: FakeAgent) -> Client:
    """The agent goes to the heir, as a real one does; its connection to the frozen one stays open."""
    heir = await both.heir()
    again = FakeAgent(heir, agent.node, agent.slots)
    again.incarnation, again.workers, again.epoch = agent.incarnation, dict(agent.workers), agent.epoch
    again.connect()
    await again.until(lambda: again.epoch > agent.epoch)
    return heir


def test_it_changes_nothing_in_the_store(pair: Callable[..., Pair]) -> None:
    async def body() -> None:
        both = pair("controller.before_txn", event="job.cancelling")
        async with running_job(both) as (client, agent, _):
            await given_up(client.call("CancelJob", job_pb2.CancelJobRequest(name="a"), timeout_s=0.5))
            await both.frozen()
            heir = await follow(both, agent)
            await both.wake()
            job = await heir.job("a")
            assert (job.status.phase, job.status.islands[0].generation) == ("RUNNING", 1)
            assert "no longer leads" in both.late.log or "leads no longer" in both.late.log

    run(body)


def test_it_makes_no_job_and_no_folder(pair: Callable[..., Pair]) -> None:
    async def body() -> None:
        both = pair("controller.audited", method="CreateJob")
        client = await client_of(await leader_of([both.late]))
        both.other.start()
        await given_up(client.call("CreateJob", create(spec()), timeout_s=0.5))
        await both.frozen()
        heir = await both.heir()
        await both.wake()
        assert not (await heir.call("ListJobs", job_pb2.ListJobsRequest())).jobs
        assert folders_in(both.folder / "jobs") == []

    run(body)


def test_it_changes_nothing_at_agents(pair: Callable[..., Pair]) -> None:
    """What it has written down, but told nobody, the heir tells; what it tells later says that it is older."""

    async def body() -> None:
        both = pair("controller.after_txn", event="job.cancelling")
        async with running_job(both) as (client, agent, _):
            epoch = agent.epoch
            await given_up(client.call("CancelJob", job_pb2.CancelJobRequest(name="a"), timeout_s=0.5))
            await both.frozen()
            heir = await follow(both, agent)
            await heir.until_phase("a", "CANCELLED")
            await both.wake()
            assert agent.epoch == epoch
            assert (await heir.job("a")).status.phase == "CANCELLED"

    run(body)


@pytest.mark.parametrize("deleted", [False, True])
def test_it_changes_no_records(pair: Callable[..., Pair], deleted: bool) -> None:
    async def body() -> None:
        both = pair("controller.before_closing")
        async with running_job(both) as (client, agent, job):
            records = Path(job.status.records)
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await both.frozen()
            heir = await follow(both, agent)
            await until_async(lambda: exists(records / "job.json"))
            before = contents(records)
            assert set(before) == {"job.json", "events.jsonl"}
            if deleted:
                await heir.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
                await heir.until_gone(job.uid)
            await both.wake()
            if deleted:
                await until_async(lambda: "was deleted while it was closed" in both.late.log)
                assert not exists(job.status.workdir)
            else:
                assert contents(records) == before

    run(body)


def test_it_removes_nothing_but_what_was_given_up(pair: Callable[..., Pair]) -> None:
    """The next job of the same name has its own folder, and what it saves where the first one did stays."""

    async def body() -> None:
        both = pair("controller.before_removal")
        async with running_job(both) as (client, agent, job):
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await client.until_phase("a", "CANCELLED")
            await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            await both.frozen()
            heir = await follow(both, agent)
            await heir.until_gone(job.uid)
            uid = (await heir.call("CreateJob", create(spec()))).job.uid
            kept = save(both.folder / "jobs" / uid / "checkpoints", uid, 10)
            await both.wake()
            assert kept.is_dir()
            assert not (both.folder / "jobs" / job.uid).exists()
            assert (await heir.job("a")).uid == uid

    run(body)


async def checkpointed(client: Client, agent: FakeAgent, job: job_pb2.Job, step: int) -> Path:
    """A committed checkpoint without tensors."""
    folder = save(Path(job.status.workdir) / "checkpoints", job.uid, step)
    ref = CheckpointRef(uri=str(folder), step=step, lineage=1, attempt=folder.name, manifest_sha256=digest(folder))
    report = CheckpointReport(job_uid=job.uid, island="island-0", generation=1, step=step, lineage=1, ref=ref)
    agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
    await client.until("a", lambda job: job.status.checkpoint.step == step)
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_it_removes_no_checkpoint_but_the_one_given_up(pair: Callable[..., Pair]) -> None:
    async def body() -> None:
        both = pair("controller.before_removal")
        async with running_job(both) as (client, agent, job):
            first = await checkpointed(client, agent, job, 10)
            second = await checkpointed(client, agent, job, 20)
            await client.call("DeleteCheckpoint", job_pb2.DeleteCheckpointRequest(name="a", step=10))
            await both.frozen()
            await follow(both, agent)
            await until_async(lambda: not exists(first))
            await both.wake()
            assert second.is_dir()
            assert not first.exists()

    run(body)


def test_it_takes_no_mark_from_a_checkpoint_that_was_pinned_meanwhile(pair: Callable[..., Pair]) -> None:
    async def body() -> None:
        both = pair("controller.before_unpin")
        async with running_job(both) as (client, agent, job):
            folder = await checkpointed(client, agent, job, 10)
            pinned, released = (
                job_pb2.PinCheckpointRequest(name="a", step=10, pinned=True),
                job_pb2.PinCheckpointRequest(name="a", step=10, pinned=False),
            )
            await client.call("PinCheckpoint", pinned)
            await given_up(client.call("PinCheckpoint", released, timeout_s=0.5))
            await both.frozen()
            heir = await follow(both, agent)
            await heir.call("PinCheckpoint", pinned)
            assert (folder / PIN).exists()
            await both.wake()
            assert (folder / PIN).exists()

    run(body)
