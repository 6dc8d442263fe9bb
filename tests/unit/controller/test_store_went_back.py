"""An older copy of the store, of the very term in which the controller was: noticed by its revision.

Without it a restored backup under a running controller could undo what agents have done.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trainctl.controller import term
from trainctl.controller.installation import OldStoreError, load_sighting
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import FencedError, TrainctlError
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import create, run, serving, spec


def back_up(store: Path, copy: Path) -> None:
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def put_back(copy: Path, store: Path) -> None:
    for file in store.parent.glob(f"{store.name}*"):
        if not file.name.endswith(".lock"):
            file.unlink()
    os.rename(copy, store)


def test_a_backup_of_the_last_term_is_refused(tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    store = folder / "store.sqlite3"

    async def main() -> None:
        async with serving(folder) as running:
            await running.client.call("CreateJob", create(spec("kept")))
            back_up(store, copy)
            await running.client.call("CreateJob", create(spec("lost")))
            reached = running.controller.leadership.newest
        seen = load_sighting(folder / "store-seen.json")
        assert seen.epoch == 1
        assert seen.revision >= reached
        put_back(copy, store)
        with pytest.raises(OldStoreError, match=f"epoch 1 and revision .*, after epoch 1 and revision {seen.revision}"):
            async with serving(folder):
                pass
        async with serving(folder, accept_store=True) as running:
            jobs = (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs
            assert [job.spec.metadata.name for job in jobs] == ["kept"]

    run(main)


def test_how_far_the_store_is_is_written_down_while_the_controller_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is killed writes nothing at its end."""
    monkeypatch.setattr(term, "REMEMBER_EVERY_S", 0.01)

    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
            reached = running.controller.leadership.newest
            async with asyncio.timeout(20):
                while load_sighting(tmp_path / "store-seen.json").revision < reached:
                    await running.client.call("ListJobs", job_pb2.ListJobsRequest())

    run(main)


def test_a_leader_stops_as_soon_as_its_store_is_an_older_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            leadership = running.controller.leadership
            leadership.newest += 1000  # as if it had been there when an older copy was put in place
            with pytest.raises(TrainctlError):
                await running.client.call("CreateJob", create(spec()))
            async with asyncio.timeout(20):
                with pytest.raises((OldStoreError, FencedError), match=r"older than it was left|went back from"):
                    await asyncio.shield(running.controller.failed)
            newest = leadership.newest
        with pytest.raises(OldStoreError, match=f"and revision {newest}"):
            async with serving(tmp_path):
                pass

    run(main)


def test_answers_that_overtake_each_other_are_no_older_store(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        leadership = await Leadership.take(store, Candidate(holder="me"))
        asked_at = leadership.newest
        leadership.saw(asked_at + 2, asked_at=asked_at)
        leadership.saw(asked_at + 1, asked_at=asked_at)
        assert leadership.newest == asked_at + 2
        assert not leadership.fenced.is_set()
        with pytest.raises(FencedError, match=f"went back from revision {asked_at + 2} to {asked_at + 1}"):
            leadership.saw(asked_at + 1, asked_at=asked_at + 2)
        assert leadership.fenced.is_set()
        with pytest.raises(FencedError, match="went back"):
            await leadership.txn((), ())
        await store.close()

    run(main)
