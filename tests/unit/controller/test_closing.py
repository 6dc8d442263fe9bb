"""What the controller leaves in a job's records when it has ended.

Without it a job's records could lack how it ended.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.controller.jobs import closing, deletion, remains
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec
from waiting import PATIENCE_S


async def appears(path: Path) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return await asyncio.to_thread(path.read_text)


async def ended_job(running: Running, **results: object) -> job_pb2.Job:
    job = spec()
    job["spec"]["results"] = results
    await running.client.call("CreateJob", create(job))
    await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
    return await running.client.until_phase("a", "CANCELLED")


def test_an_ended_job_leaves_its_state_and_its_events(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            job = await ended_job(running)
            records = Path(job.status.records)
            assert records == tmp_path / "jobs" / job.uid / "records"
            shown = json.loads(await appears(records / "job.json"))
            assert (shown["uid"], shown["status"]["phase"]) == (job.uid, "CANCELLED")
            assert shown["effectiveSpec"]["spec"]["train"]["steps"] == 10
            events = [json.loads(line) for line in (records / "events.jsonl").read_text().splitlines()]
            listed = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            assert [event["message"] for event in events] == [event.message for event in listed]
            assert events[-1]["type"] == "job.cancelled"

    run(main)


def test_the_records_lie_where_the_job_file_says(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "run") as running:
            job = await ended_job(running, uri=f"local://{tmp_path}/bucket")
            assert job.status.records == f"local://{tmp_path}/bucket/{job.uid}/records"
            await appears(tmp_path / "bucket" / job.uid / "records" / "job.json")

    run(main)


def test_a_full_storage_is_tried_again_and_a_later_controller_fills_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = threading.Semaphore(0)

    def full(self: LocalStorage, path: str, buffers: object) -> int:
        tries.release()
        raise OSError(28, "No space left on device")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(closing, "AGAIN_S", 0.01)
            patched.setattr(LocalStorage, "write_file", full)
            async with serving(tmp_path) as running:
                job = await ended_job(running)
                for _ in range(2):
                    assert await asyncio.to_thread(tries.acquire, timeout=PATIENCE_S)
                records = Path(job.status.records)
                assert not (records / "job.json").exists()
        async with serving(tmp_path):
            await appears(records / "job.json")

    run(main)


def test_a_job_whose_folder_was_removed_gets_none_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
            folder = tmp_path / "jobs" / (await running.client.job("a")).uid
            folder.rmdir()
            await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await running.client.until_phase("a", "CANCELLED")
            await running.client.call("CreateJob", create(spec("b")))
            await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="b"))
            other = await running.client.until_phase("b", "CANCELLED")
            await appears(Path(other.status.records) / "job.json")  # of the job that ended later
            assert not folder.exists()

    run(main)


def test_a_job_is_not_removed_while_its_records_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that somebody writes into refuses to go, and the deletion would be seen to fail."""
    writing, waits = threading.Event(), threading.Event()
    order: list[str] = []
    write, remove = LocalStorage.write_file, remains.remove

    def slowly(self: LocalStorage, path: str, buffers: Any) -> int:
        writing.set()
        assert waits.wait(PATIENCE_S)
        size = write(self, path, buffers)
        order.append("written")
        return size

    def noted(what: Any) -> None:
        order.append("removed")
        remove(what)

    monkeypatch.setattr(LocalStorage, "write_file", slowly)
    monkeypatch.setattr(deletion, "remove", noted)

    async def main() -> None:
        async with serving(tmp_path) as running:
            job = await ended_job(running)
            assert await asyncio.to_thread(writing.wait, PATIENCE_S)
            await running.client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            await running.client.call("CreateJob", create(spec("b")))
            waits.set()
            await running.client.until_gone(job.uid)

    run(main)
    assert order[:3] == ["written", "written", "removed"]


def test_a_controller_that_ends_while_it_closes_a_job_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store is closed then, and never answers whether the job is still there."""
    writing, waits = threading.Event(), threading.Event()
    write = LocalStorage.write_file

    def slowly(self: LocalStorage, path: str, buffers: Any) -> int:
        writing.set()
        assert waits.wait(PATIENCE_S)
        return write(self, path, buffers)

    monkeypatch.setattr(LocalStorage, "write_file", slowly)

    async def main() -> None:
        async with serving(tmp_path) as running:
            await ended_job(running)
            assert await asyncio.to_thread(writing.wait, PATIENCE_S)
        waits.set()

    thread = threading.Thread(target=run, args=(main,), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
