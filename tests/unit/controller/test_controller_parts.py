"""The small parts of the shell: queue, journal, figures, leadership, clock, checks.

Without it a part that all of the controller stands on could drop an event or hang.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import uuid
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trainctl.controller import keys
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.spec import effective, job_from_wire
from trainctl.controller.identities import LeaderIds, new_uid
from trainctl.controller.jobs.checks import check_outside
from trainctl.controller.jobs.figures import FigureLog
from trainctl.controller.jobs.journal import EventsExpiredError, Journal
from trainctl.controller.jobs.presence import missing_checkpoints
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.store.port import Compare, Delete, Put, Target
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.controller.tasks import to_the_end
from trainctl.controller.work_queue import WorkQueue
from trainctl.core.clock import ManualClock
from trainctl.core.errors import FencedError, SpecError
from trainctl.core.records.generation import CheckpointRef
from unit.controller.controller_harness import figure, spec


def test_queue_works_on_a_key_once_at_a_time_and_never_loses_news() -> None:
    async def main() -> None:
        queue, running, passes = WorkQueue(Random(1)), set[str](), list[str]()
        finished = asyncio.Event()

        async def handle(key: str) -> None:
            assert key not in running
            running.add(key)
            if passes.count(key) == 0:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0)
            running.discard(key)
            passes.append(key)
            if len(passes) == 4:
                finished.set()

        for key in ("a", "b", "a"):
            queue.add(key)
        assert len(queue) == 2
        workers = [asyncio.create_task(queue.work(handle, lambda *_: None)) for _ in range(3)]
        await asyncio.wait_for(finished.wait(), 5)
        for worker in workers:
            worker.cancel()
        assert sorted(passes) == ["a", "a", "b", "b"]

    asyncio.run(main())


def test_queue_tries_a_failing_key_again_and_goes_on_with_others() -> None:
    async def main() -> None:
        queue, failures, done = WorkQueue(Random(1)), list[str](), asyncio.Event()

        async def handle(key: str) -> None:
            if key == "bad" and len(failures) < 3:
                raise ValueError(key)
            if key == "bad":
                done.set()

        queue.add("bad")
        queue.add("good")
        worker = asyncio.create_task(queue.work(handle, lambda key, _: failures.append(key)))
        await asyncio.wait_for(done.wait(), 10)
        worker.cancel()
        queue.close()
        assert failures == ["bad"] * 3

    asyncio.run(main())


def drafts(count: int) -> list[EventDraft]:
    return [EventDraft(type="t", reason="R", message=f"m{index}") for index in range(count)]


def test_journal_numbers_without_a_gap_and_keeps_the_newest() -> None:
    journal = Journal("default", "u", kept=10)
    stored: dict[str, bytes] = {}
    for size in (3, 1, 5, 2, 4, 4):
        batch, operations = journal.prepare(drafts(size), 1.0)
        for operation in operations:
            if isinstance(operation, Put):
                stored[operation.key] = operation.value
            elif isinstance(operation, Delete):
                del stored[operation.key]
        journal.commit(batch)
    assert journal.newest == 19
    kept = [event.revision for event in journal.after(0)]
    assert kept == list(range(kept[0], 20))
    assert 10 <= len(kept) < 15
    assert [event.revision for event in journal.after(17, 1)] == [18]
    with pytest.raises(EventsExpiredError):
        journal.after(kept[0] - 2)
    again = Journal("default", "u", kept=10)
    for key in sorted(stored):
        again.load(keys.decode(stored[key]))
    assert again.after(0) == journal.after(0)


def test_a_prepared_batch_that_was_not_stored_leaves_no_trace() -> None:
    journal = Journal("default", "u")
    journal.prepare(drafts(3), 1.0)
    batch, _ = journal.prepare(drafts(2), 1.0)
    assert [event.revision for event in batch] == [1, 2]


def test_figures_newest_generation_and_lineage_win(tmp_path: Path) -> None:
    log = FigureLog(tmp_path / "f.jsonl")
    assert [f.step for f in log.add([figure(2), figure(1), figure(3)])] == [1, 2, 3]
    assert log.add([figure(2, loss=9.0)]) == []
    assert log.add([figure(3, generation=2, loss=5.0)])[0].loss == 5.0
    log.add([figure(2, generation=3, lineage=2, loss=7.0)])
    assert [(f.step, f.lineage) for f in log.after(0)] == [(1, 1), (2, 2)]
    assert log.add([figure(3), figure(4)]) == []
    again = FigureLog(tmp_path / "f.jsonl")
    again.load()
    assert again.after(0) == log.after(0)
    assert [f.step for f in again.after(1, 1)] == [2]


def test_figures_survive_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    FigureLog(path).add([figure(1), figure(2)])
    path.write_bytes(path.read_bytes()[:-20])
    log = FigureLog(path)
    log.load()
    log.add([figure(2), figure(3)])
    again = FigureLog(path)
    again.load()
    assert [f.step for f in again.after(0)] == [1, 2, 3]


def test_figures_survive_lines_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    FigureLog(path).add([figure(1)])
    with path.open("ab") as file:
        file.write(b"\n".join([b"[" * 9_000, b"\xff", b"[]", b'{"step": 1e999}', b""]))
    log = FigureLog(path)
    log.load()
    log.add([figure(2)])
    again = FigureLog(path)
    again.load()
    assert [f.step for f in again.after(0)] == [1, 2]


def test_figures_stay_in_memory_when_the_disk_does_not_take_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = FigureLog(tmp_path / "file" / "f.jsonl")
    log.add([figure(1)])
    assert [f.step for f in log.after(0)] == [1]


def test_every_leader_has_a_greater_epoch_and_the_former_one_is_fenced(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        first = await Leadership.take(store, Candidate(holder="first"))
        assert (await first.txn((), (Put("a", b"1"),))).succeeded
        second = await Leadership.take(store, Candidate(holder="second"))
        assert second.epoch == first.epoch + 1
        with pytest.raises(FencedError):
            await first.txn((), (Put("a", b"stale"),))
        assert first.fenced.is_set()
        assert (await second.txn((Compare("a", Target.VALUE, b"1"),), (Put("a", b"2"),))).succeeded
        conflict = await second.txn((Compare("a", Target.VALUE, b"1"),), (Put("a", b"3"),))
        assert not conflict.succeeded
        assert conflict.current[0] is not None
        assert conflict.current[0].value == b"2"
        assert not second.fenced.is_set()
        await store.close()

    asyncio.run(main())


def test_incarnations_rise_over_epochs() -> None:
    first, second = LeaderIds(1, Random(1)), LeaderIds(2, Random(1))
    given = [first.incarnation(), first.incarnation(), second.incarnation()]
    assert given == sorted(set(given))
    assert first.nonce() != first.nonce()


def test_uids_are_version_7_and_sort_by_time() -> None:
    early, late = new_uid(1_000.0, Random(1)), new_uid(2_000.0, Random(1))
    assert early < late
    assert uuid.UUID(early).version == 7
    assert uuid.UUID(early).variant == uuid.RFC_4122


def test_the_steady_clock_never_goes_back() -> None:
    manual = ManualClock(100.0)
    clock = SteadyClock(manual)
    clock.not_before(500.0)
    assert clock.now_s() == 500.0
    manual.advance(1.0)
    clock.not_before(300.0)
    assert clock.now_s() == 501.0


def test_work_completes_although_its_caller_goes_away() -> None:
    async def main() -> None:
        begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await may_end.wait()
            ended.set()

        caller = asyncio.create_task(to_the_end(work()))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())


def problems_of(uri: str, include: str = "*") -> list[str]:
    job = spec(corpus=uri)
    job["spec"]["train"]["data"]["include"] = include
    try:
        check_outside(effective(job_from_wire(job)))
    except SpecError as error:
        return [problem.message for problem in error.problems]
    return []


def test_data_is_looked_for_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("text")
    good = ("python-stdlib", "s3://bucket/corpus", str(tmp_path), f"file://{tmp_path}", f"{tmp_path}/deep/*.txt")
    for uri in good:
        assert problems_of(uri) == []
    assert problems_of(str(tmp_path), "*.txt") == []
    assert "matches" in problems_of(str(tmp_path), "*.md")[0]
    assert "no file matches" in problems_of(f"{tmp_path}/*.md")[0]
    assert "does not exist" in problems_of(f"{tmp_path}/nothing")[0]
    assert "absolute" in problems_of("relative/path")[0]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be read" in problems_of(str(tmp_path))[0]


def test_a_checkpoint_folder_that_cannot_be_written_is_found_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = spec()
    job["spec"]["checkpoint"] = {"uri": str(tmp_path / "new" / "folder")}
    assert check_outside(effective(job_from_wire(job))) is None
    assert not (tmp_path / "new").exists()

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(SpecError, match="cannot be written by this user: Read-only file system"):
        check_outside(effective(job_from_wire(job)))


def test_what_lies_below_a_closed_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, look = tmp_path / "closed" / "below", os.stat
    below.parent.mkdir()

    def closed(path: Any, **kwargs: Any) -> os.stat_result:
        if str(path).startswith(str(below)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **kwargs)

    def refuse(**where: object) -> None:
        raise PermissionError(errno.EACCES, f"not in {where['dir']}")

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    job = spec()
    job["spec"]["checkpoint"] = {"uri": str(below / "folder")}
    with pytest.raises(SpecError, match="closed cannot be written by this user: not in"):
        check_outside(effective(job_from_wire(job)))
    refs = [CheckpointRef(uri=str(below), step=1, lineage=1, attempt="a", manifest_sha256="0")]
    assert missing_checkpoints(refs) == [str(below)]
