"""How far saves and loads are, on the progress page of a worker: while they go on, and not a moment longer.

Without it people would see a save that is long over, or none while one goes on.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from trainctl.core.records.part import Transfer, TransferKind
from trainctl.core.system.memory_folder import MEMORY_VARIABLE
from trainctl.parallel.progress_page import ProgressWriter, read_progress
from trainctl.parallel.session.control import NoPage
from trainctl.parallel.transfers import TransferBoard
from unit.session.saving_runs import Run, Storage, storage
from waiting import PATIENCE_S

__all__ = ["storage"]  # a fixture


class Page(NoPage):
    """Remembers what it was to show."""

    def __init__(self) -> None:
        self.shown: list[Transfer | None] = []
        self.changed = threading.Condition()

    def transfer(self, transfer: Transfer | None, since_s: float) -> None:
        with self.changed:
            self.shown.append(transfer)
            self.changed.notify_all()

    def wait_for(self, transfer: Transfer | None) -> None:
        with self.changed:
            there = self.changed.wait_for(lambda: self.shown[-1:] == [transfer], PATIENCE_S)
        assert there, self.shown


def test_the_oldest_is_shown_and_how_many_there_are() -> None:
    page = Page()
    board = TransferBoard(page.transfer)
    first = board.begin(TransferKind.SAVE, 10, 100)
    first.add(40)
    second = board.begin(TransferKind.SAVE, 20, 100)
    second.add(100)
    assert page.shown[-1] == Transfer(
        kind=TransferKind.SAVE, step=10, done_bytes=40, total_bytes=100, age_s=0.0, in_flight=2
    )
    first.restart()
    assert page.shown[-1] == Transfer(kind=TransferKind.SAVE, step=10, total_bytes=100, in_flight=2)
    first.close()
    first.close()
    assert page.shown[-1] == Transfer(kind=TransferKind.SAVE, step=20, done_bytes=100, total_bytes=100)
    second.add(1)
    assert page.shown[-1] == Transfer(kind=TransferKind.SAVE, step=20, done_bytes=100, total_bytes=100)
    second.close()
    assert page.shown[-1] is None
    second.add(5)
    assert page.shown[-1] is None, "a thread that is late counts for nobody"


def test_the_page_shows_it_beside_the_phase(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    writer = ProgressWriter(path)
    now_s = time.monotonic()
    assert read_progress(path, now_s).transfer is None
    transfer = Transfer(kind=TransferKind.LOAD, step=1100, done_bytes=5 << 40, total_bytes=6 << 40, in_flight=1)
    writer.transfer(transfer, now_s - 7.0)
    found = read_progress(path, now_s).transfer
    assert found is not None
    assert found.age_s == pytest.approx(7.0)
    assert (found.kind, found.step, found.done_bytes, found.total_bytes) == (TransferKind.LOAD, 1100, 5 << 40, 6 << 40)
    assert read_progress(path, now_s).generation == 0
    writer.transfer(None, 0.0)
    assert read_progress(path, now_s).transfer is None


def test_samples_of_a_transfer_are_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    writer = ProgressWriter(path)
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            writer.transfer(
                Transfer(kind=TransferKind.SAVE, step=number % 1000, done_bytes=number, total_bytes=number), 0.0
            )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            found = read_progress(path, time.monotonic()).transfer
            assert found is None or (found.done_bytes == found.total_bytes and found.step == found.done_bytes % 1000)
    finally:
        over.set()
        thread.join()


def test_a_save_is_shown_until_all_ranks_know_that_it_is_over(tmp_path: Path, storage: Storage) -> None:
    run = Run(tmp_path, steps=4, interval=2)
    page = Page()
    run.session._context.signs._page = page
    storage.open.clear()
    for _ in range(3):
        run.step()
    assert storage.waiting.wait(PATIENCE_S)
    begun = page.shown[-1]
    assert begun is not None
    assert (begun.kind, begun.step, begun.done_bytes, begun.in_flight) == (TransferKind.SAVE, 2, 0, 1)
    assert begun.total_bytes > 1000
    storage.open.set()
    run.to_the_end()
    assert page.shown[-1] is None
    done = [shown for shown in page.shown if shown is not None and shown.done_bytes == shown.total_bytes]
    assert {shown.step for shown in done} == {2, 4}
    assert {shown.total_bytes for shown in done} == {begun.total_bytes}


def test_a_worker_that_leaves_shows_nothing_more(tmp_path: Path, storage: Storage) -> None:
    run = Run(tmp_path)
    page = Page()
    run.session._context.signs._page = page
    storage.open.clear()
    for _ in range(2):
        run.step()
    assert storage.waiting.wait(PATIENCE_S)
    assert page.shown[-1] is not None
    run.session.close()
    assert page.shown[-1] is None
    storage.open.set()


def test_snapshots_are_no_saves_that_anybody_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, str(tmp_path / "memory"))
    run = Run(tmp_path, steps=300, interval=200, snapshots=1)
    page = Page()
    run.session._context.signs._page = page
    memory = run.session._context.memory
    assert memory is not None
    seen = set()
    while not run.session.done:
        run.step()
        seen |= {held.snapshot.step for held in memory.held()}
    assert seen
    assert {shown.step for shown in page.shown if shown is not None} == {200, 300}
    assert max(shown.in_flight for shown in page.shown if shown is not None) <= 2
    assert [report.step for report in run.control.reports] == [200, 300]
