"""Without it a live worker could look frozen and be killed, or a frozen one look alive for ever."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Progress
from trainctl.parallel.progress_page import PAGE_BYTES, ProgressWriter, read_progress


def test_no_page_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "zeros").write_bytes(bytes(PAGE_BYTES))
    for name in ("missing", "short", "zeros"):
        assert read_progress(str(tmp_path / name), 5.0) == Progress()


def test_phases_and_ages(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    before_s = time.monotonic()
    writer = ProgressWriter(path)
    writer.phase(3, 41, Phase.VOTE)
    after_s = time.monotonic()
    progress = read_progress(path, after_s + 2)
    assert (progress.generation, progress.step, progress.phase) == (3, 41, Phase.VOTE)
    assert 2 <= progress.phase_age_s <= 2 + after_s - before_s
    assert progress.alive_age_s == progress.phase_age_s


def test_a_touch_moves_only_the_alive_age(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    writer = ProgressWriter(path)
    writer.phase(1, 1, Phase.REDUCE)
    old = read_progress(path, time.monotonic() + 1)
    writer.touch()
    new = read_progress(path, time.monotonic() + 1)
    assert new.phase_age_s > old.phase_age_s
    assert new.alive_age_s < new.phase_age_s


def test_works_on_an_anonymous_file() -> None:
    fd = os.memfd_create("page")
    ProgressWriter(f"/proc/self/fd/{fd}").phase(1, 2, Phase.EVAL)
    assert read_progress(f"/proc/self/fd/{fd}", time.monotonic()).step == 2
    os.close(fd)


def test_samples_are_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    writer = ProgressWriter(path)
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            writer.phase(number, number, Phase.COMPUTE)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            sample = read_progress(path, time.monotonic())
            assert sample.generation == sample.step
    finally:
        done.set()
        thread.join()
