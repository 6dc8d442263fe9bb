"""Removing and pinning single checkpoints: nothing that is needed goes, and what goes is gone also after a restart.

Without it `trainctl checkpoint rm` could remove what a job has to go back to.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from trainctl.checkpoint.kept.catalog import inspect
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.manifest.names import DAMAGED, PIN
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, NotFoundError, PreconditionError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport, WorkerError, WorkerPhase
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2, records_pb2
from unit.controller.checkpointed_jobs import listed, started
from unit.controller.controller_harness import Client, FakeAgent, Running, create, run, serving, spec
from unit.controller.saved_jobs import cancelled, save


async def committed(running: Running, agent: FakeAgent, job: job_pb2.Job, *steps: int) -> list[CheckpointRef]:
    """Checkpoints that lie in the job's folder, and that the controller has heard of."""
    refs = []
    for step in steps:
        folder = save(Path(job.status.workdir) / "checkpoints", job.uid, step)
        refs.append(inspect(str(folder)).ref)
        report = CheckpointReport(
            job_uid=job.uid, island="island-0", generation=1, step=step, lineage=1, ref=refs[-1], seconds=0.1
        )
        agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
    await running.client.until("a", lambda job: job.status.checkpoint.step == steps[-1])
    return refs


async def until(client: Client, condition: Callable[[job_pb2.ListCheckpointsResponse], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition(await listed(client)):
            continue


def there(uri: str) -> bool:
    return Path(uri).exists()


def remove(step: int, request_id: str = "") -> job_pb2.DeleteCheckpointRequest:
    return job_pb2.DeleteCheckpointRequest(name="a", step=step, request_id=request_id)


def pin(step: int, *, pinned: bool = True, request_id: str = "") -> job_pb2.PinCheckpointRequest:
    return job_pb2.PinCheckpointRequest(name="a", step=step, pinned=pinned, request_id=request_id)


def test_a_checkpoint_is_removed_once_and_its_files_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20, 30)
            await asyncio.gather(*(client.call("DeleteCheckpoint", remove(10, "r")) for _ in range(5)))
            await until(client, lambda found: not found.removing)
            assert [ref.step for ref in (await listed(client)).checkpoints] == [20, 30]
            assert [there(ref.uri) for ref in refs] == [False, True, True]
            events = [e.type for e in (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events]
            assert events.count("checkpoint.delete_requested") == events.count("checkpoint.deleted") == 1
            with pytest.raises(NotFoundError, match="no committed checkpoint of step 10; there are those of: 20, 30"):
                await client.call("DeleteCheckpoint", remove(10))
            with pytest.raises(PreconditionError, match="is the newest of job a, which is RUNNING") as refused:
                await client.call("DeleteCheckpoint", remove(30))
            assert (refused.value.code, bool(refused.value.hint)) == ("CHECKPOINT_NEEDED", True)
            await cancelled(client)
            await client.call("DeleteCheckpoint", remove(30))
            await until(client, lambda found: not found.removing and len(found.checkpoints) == 1)
            assert not there(refs[2].uri)
            with pytest.raises(PreconditionError, match="step 20 is the last valid one of job a") as refused:
                await client.call("DeleteCheckpoint", remove(20))
            assert "trainctl delete a" in refused.value.hint
            assert there(refs[1].uri)

    run(main)


def test_the_only_one_whose_files_are_there_is_not_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20, 30)
            await cancelled(running.client)
            for ref in refs[1:]:
                (Path(ref.uri) / "manifest.json").unlink()
            with pytest.raises(PreconditionError, match="step 10 is the last valid one"):
                await running.client.call("DeleteCheckpoint", remove(10))
            assert there(refs[0].uri)
            await running.client.call("DeleteCheckpoint", remove(30))
            await until(running.client, lambda found: not found.removing and len(found.checkpoints) == 2)

    run(main)


def test_what_another_job_began_from_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            other = spec("b", steps=100)
            other["spec"]["checkpoint"] = {"resumeFrom": refs[0].uri}
            await client.call("CreateJob", create(other))
            with pytest.raises(PreconditionError, match="job b began from"):
                await client.call("DeleteCheckpoint", remove(10))
            assert there(refs[0].uri)

    run(main)


def test_a_pinned_one_outlives_its_age_and_cannot_be_removed(tmp_path: Path) -> None:
    async def first() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            for request in (pin(10, request_id="p"), pin(10, request_id="p"), pin(10)):
                await client.call("PinCheckpoint", request)
            assert (Path(refs[0].uri) / PIN).exists()
            await committed(running, agent, job, *range(30, 100, 10))
            found = await listed(client)
            assert [ref.step for ref in found.checkpoints] == [10, 70, 80, 90]
            assert list(found.pinned) == [refs[0].uri]
            with pytest.raises(PreconditionError, match="is pinned") as refused:
                await client.call("DeleteCheckpoint", remove(10))
            assert refused.value.hint == "trainctl checkpoints unpin a --step 10"
            with pytest.raises(NotFoundError, match="no committed checkpoint of step 11"):
                await client.call("PinCheckpoint", pin(11))

    async def second() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            (uri,) = (await listed(client)).pinned
            await client.call("PinCheckpoint", pin(10, pinned=False, request_id="u"))
            assert not (Path(uri) / PIN).exists()
            await client.call("PinCheckpoint", pin(10, request_id="p"))
            assert not (Path(uri) / PIN).exists(), "that request had its effect before"
            await client.call("DeleteCheckpoint", remove(10))
            await until(client, lambda found: not found.removing)
            assert not there(uri)

    run(first)
    run(second)


def test_one_whose_files_are_gone_cannot_be_pinned(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            (Path(refs[0].uri) / "manifest.json").unlink()
            with pytest.raises(CheckpointError, match="is missing"):
                await running.client.call("PinCheckpoint", pin(10))
            assert not (await listed(running.client)).pinned

    run(main)


def test_a_removal_that_is_refused_is_told_and_done_after_a_restart(tmp_path: Path) -> None:
    refs: list[CheckpointRef] = []
    outside = tmp_path / "outside"

    async def first() -> None:
        async with serving(tmp_path / "run") as running:
            agent, job = await started(running)
            refs.extend(await committed(running, agent, job, 10, 20))
            step = Path(refs[0].uri).parent
            step.rename(outside)
            step.symlink_to(outside)  # what lies outside of the folder is not ours to remove
            await running.client.call("DeleteCheckpoint", remove(10))
            await running.client.until(
                "a", lambda job: any("a link leads out of the folder" in c.message for c in job.status.conditions)
            )
            assert [ref.step for ref in (await listed(running.client)).removing] == [10]

    async def second() -> None:
        async with serving(tmp_path / "run") as running:
            await until(running.client, lambda found: not found.removing)

    run(first)
    step = Path(refs[0].uri).parent
    step.unlink()
    outside.rename(step)
    run(second)
    assert not there(refs[0].uri)


def is_refused(ref: CheckpointRef, found: job_pb2.ListCheckpointsResponse) -> bool:
    return any(one.ref.uri == ref.uri for one in found.refused)


async def damaged(running: Running, agent: FakeAgent, *refs: CheckpointRef) -> None:
    """A worker finds one after the other damaged, and marks it."""
    for ref in refs:
        mark_damaged(ref, DamagedCheckpointError("a byte of w is wrong"))
        error = WorkerError(type="E", message="a byte of w is wrong", code="CHECKPOINT_DAMAGED", checkpoint=ref.uri)
        for key, worker in list(agent.workers.items()):
            agent.workers[key] = replace(worker, phase=WorkerPhase.EXITED, exit_code=1, error=error)
        agent.observe()
        await until(running.client, partial(is_refused, ref))
        await running.client.until_phase("a", "RUNNING")


def accept(uri: str, request_id: str = "") -> job_pb2.AcceptCheckpointRequest:
    return job_pb2.AcceptCheckpointRequest(name="a", uri=uri, request_id=request_id)


def test_a_refused_one_is_listed_with_its_reason_and_the_refusal_can_be_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20, 30)
            await damaged(running, agent, refs[2], refs[1])
            found = await listed(client)
            assert [ref.step for ref in found.checkpoints] == [10]
            assert [(one.ref.step, one.reason, one.at_s > 0) for one in found.refused] == [
                (30, "a byte of w is wrong", True),
                (20, "a byte of w is wrong", True),
            ]
            answer = await client.call("AcceptCheckpoint", accept(refs[2].uri, "r"))
            assert not answer.listed, "the job has gone on from step 10"
            assert not (Path(refs[2].uri) / DAMAGED).exists()
            found = await listed(client)
            assert ([ref.step for ref in found.checkpoints], [one.ref.step for one in found.refused]) == ([10], [20])
            assert not (await client.call("AcceptCheckpoint", accept(refs[2].uri, "r"))).listed
            await cancelled(client)
            await client.call("AcceptCheckpoint", accept(refs[1].uri, "s"))
            assert (await client.call("AcceptCheckpoint", accept(refs[1].uri))).listed, "asked again it is no error"
            assert [ref.step for ref in (await listed(client)).checkpoints] == [10, 20]
            events = (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            told = [event.message for event in events if event.type == "checkpoint.accepted"]
            assert [("gone on without it" in text, "listed again" in text) for text in told] == [
                (True, False),
                (False, True),
            ]

    run(main)


def test_what_is_not_whole_or_not_refused_is_not_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            await damaged(running, agent, refs[1])
            manifest = Path(refs[1].uri) / "manifest.json"
            whole = manifest.read_bytes()
            for content in (None, whole.replace(b'"epoch": 1', b'"epoch": 2').replace(b'"epoch":1', b'"epoch":2')):
                manifest.unlink(missing_ok=True)
                if content is not None:
                    manifest.write_bytes(content)
                with pytest.raises(CheckpointError, match=r"missing|expected the manifest with sha256"):
                    await client.call("AcceptCheckpoint", accept(refs[1].uri))
            assert (Path(refs[1].uri) / DAMAGED).exists()
            assert not (await listed(client)).missing
            manifest.unlink()
            assert list((await listed(client)).missing) == [refs[1].uri]
            assert [one.ref.step for one in (await listed(client)).refused] == [20]
            for uri in ("/nowhere", ""):
                with pytest.raises(NotFoundError, match="has refused no checkpoint at") as refused:
                    await client.call("AcceptCheckpoint", accept(uri))
                assert refs[1].uri in str(refused.value)

    run(main)


def refuse(uri: str, request_id: str = "", found: str = "w0 is corrupt") -> job_pb2.RefuseCheckpointRequest:
    return job_pb2.RefuseCheckpointRequest(name="a", request_id=request_id, uri=uri, found=found)


def test_one_that_was_verified_and_found_damaged_is_refused_once_and_marked(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            answers = await asyncio.gather(
                *(client.call("RefuseCheckpoint", refuse(refs[1].uri, "r")) for _ in range(3))
            )
            assert {answer.listed for answer in answers} == {False}
            assert (Path(refs[1].uri) / DAMAGED).read_text() == "w0 is corrupt\n"
            found = await listed(client)
            assert [ref.step for ref in found.checkpoints] == [10]
            assert [(one.ref.step, one.reason) for one in found.refused] == [(20, "w0 is corrupt")]
            (stale,) = [c for c in (await client.job("a")).status.conditions if c.type == "CheckpointStale"]
            assert (stale.status, stale.reason) == ("True", "Damaged")
            events = (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            (told,) = [event.message for event in events if event.type == "checkpoint.rejected"]
            assert "who verified it, found: w0 is corrupt" in told
            with pytest.raises(NotFoundError, match="no committed checkpoint of step 20"):
                await client.call("PinCheckpoint", pin(20))
            await client.call("AcceptCheckpoint", accept(refs[1].uri))
            assert not (Path(refs[1].uri) / DAMAGED).exists()
            assert [ref.step for ref in (await listed(client)).checkpoints] == [10, 20]
            await client.call("RefuseCheckpoint", refuse(refs[1].uri, "r"))
            assert not (Path(refs[1].uri) / DAMAGED).exists(), "that request had its effect before"

    run(main)


def test_the_last_one_of_a_living_job_is_marked_and_stays_listed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent, job = await started(running)
            (ref,) = await committed(running, agent, job, 10)
            assert (await client.call("RefuseCheckpoint", refuse(ref.uri))).listed
            assert (Path(ref.uri) / DAMAGED).exists()
            assert [one.step for one in (await listed(client)).checkpoints] == [10]
            with pytest.raises(NotFoundError, match="has no checkpoint at /nowhere"):
                await client.call("RefuseCheckpoint", refuse("/nowhere"))

    run(main)


def test_files_that_cannot_be_marked_are_refused_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def main() -> None:
        async with serving(tmp_path) as running:
            agent, job = await started(running)
            refs = await committed(running, agent, job, 10, 20)
            monkeypatch.setattr(LocalStorage, "create_file", read_only)
            await running.client.call("RefuseCheckpoint", refuse(refs[1].uri))
            assert [one.ref.step for one in (await listed(running.client)).refused] == [20]
            assert not (Path(refs[1].uri) / DAMAGED).exists()

    run(main)
