"""Without it a full or hanging results store could cost logs, memory or the agent's end, or revive a deleted job."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainctl.agent.logs import archive
from trainctl.agent.logs.archive import LogArchive
from trainctl.agent.logs.files import LogLine
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.codec import to_wire
from trainctl.core.records.spec import JobMetadata, JobSpec, ResultsSpec, TrainJob
from trainctl.core.records.worker import Instruction, WorkerDesired
from waiting import PATIENCE_S


def desired(workdir: Path | str, results: ResultsSpec | None = None, job_uid: str = "u") -> WorkerDesired:
    job = TrainJob(metadata=JobMetadata(name="j"), spec=JobSpec(results=results or ResultsSpec()))
    return WorkerDesired(
        job_uid=job_uid, job_name="j", island="i", slot=0, incarnation=1, instruction=Instruction.RUN,
        spec=to_wire(job), workdir=str(workdir),
    )  # fmt: skip


def lines(*texts: str, slot: int = 0, incarnation: int = 1) -> list[LogLine]:
    return [LogLine(slot=slot, incarnation=incarnation, text=text, number=n) for n, text in enumerate(texts, 1)]


class Appends:
    """Stands between the archive and the disk: says when something was written, and refuses on demand."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.tries = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Appends]:
    appends = Appends()
    whole: Callable[..., None] = LocalStorage.append

    def append(self: LocalStorage, path: str, data: bytes, *, at: int) -> None:
        assert appends.gate.wait(PATIENCE_S)
        try:
            if appends.error is not None:
                raise appends.error
            whole(self, path, data, at=at)
        finally:
            appends.tries.release()

    monkeypatch.setattr(LocalStorage, "append", append)
    monkeypatch.setattr(archive, "_RETRY_S", 0.01)
    yield appends
    appends.gate.set()


def test_lines_lie_with_the_records_while_the_worker_runs(tmp_path: Path, disk: Appends) -> None:
    kept = LogArchive(every_s=0.01)
    kept.know([desired(tmp_path)])
    kept.take("u", lines("one", "two"))
    kept.take("u", lines("other", slot=3, incarnation=7))
    kept.take("unknown", lines("nobody's"))
    for _ in range(2):
        assert disk.tries.acquire(timeout=PATIENCE_S)
    kept.take("u", lines("three"))
    kept.close()
    logs = tmp_path / "records" / "logs"
    assert (logs / "0-1.log").read_text() == "one\ntwo\nthree\n"
    assert (logs / "3-7.log").read_text() == "other\n"
    assert len(list(logs.iterdir())) == 2


def test_lines_of_a_deleted_job_do_not_bring_its_folder_back(tmp_path: Path, disk: Appends) -> None:
    kept = LogArchive(every_s=60.0)
    kept.know([desired(tmp_path)])
    kept.take("u", lines("last words"))
    kept.forget(["u", "never heard of"])
    kept.know([desired(tmp_path)])
    kept.take("u", lines("later words"))
    kept.close()
    assert not (tmp_path / "records").exists()


def test_another_place_or_none(tmp_path: Path) -> None:
    kept = LogArchive()
    kept.know(
        [
            desired(tmp_path / "off", ResultsSpec(logs=False), "off"),
            desired(tmp_path / "x", ResultsSpec(uri=f"local://{tmp_path}/bucket/"), "far"),
        ]
    )
    for uid in ("off", "far"):
        kept.take(uid, lines(f"of {uid}"))
    kept.close()
    assert not (tmp_path / "off").exists()
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "bucket" / "far" / "records" / "logs" / "0-1.log").read_text() == "of far\n"


def test_a_full_storage_is_filled_when_there_is_room_again(
    tmp_path: Path, disk: Appends, caplog: pytest.LogCaptureFixture
) -> None:
    disk.error = OSError(errno.ENOSPC, "No space left on device")
    kept = LogArchive(every_s=0.01)
    kept.know([desired(tmp_path)])
    kept.take("u", lines("one"))
    for _ in range(3):
        assert disk.tries.acquire(timeout=PATIENCE_S)
    kept.take("u", lines("two"))
    disk.error = None
    kept.close()
    assert (tmp_path / "records" / "logs" / "0-1.log").read_text() == "one\ntwo\n"
    assert sum("No space left" in message for message in caplog.messages) == 1


def test_a_storage_that_hangs_costs_lines_not_memory(
    tmp_path: Path, disk: Appends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_WAITING_CHARACTERS", 100)
    disk.gate.clear()
    kept = LogArchive(every_s=0.0)
    kept.know([desired(tmp_path)])
    for number in range(1000):
        kept.take("u", lines(f"{number:9}"))
    disk.gate.set()
    kept.close()
    written = (tmp_path / "records" / "logs" / "0-1.log").read_text().splitlines()
    assert written[-1] == "      999"
    assert "lines left out: the storage was too slow]" in "".join(written)
    left_out = sum(int(line[1:].split()[0]) for line in written if line.startswith("["))
    assert left_out + sum(not line.startswith("[") for line in written) == 1000


def test_closing_does_not_wait_for_a_storage_that_hangs(
    tmp_path: Path, disk: Appends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_CLOSE_S", 0.05)
    disk.gate.clear()
    kept = LogArchive()
    kept.know([desired(tmp_path)])
    kept.take("u", lines("one"))
    kept.close()


def test_a_writer_that_ended_for_want_of_lines_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_IDLE_S", 0.0)
    kept = LogArchive(every_s=0.0)
    kept.know([desired(tmp_path)])
    for number in range(20):
        kept.take("u", lines(f"{number}"))
    kept.close()
    assert (tmp_path / "records" / "logs" / "0-1.log").read_text().split() == [str(n) for n in range(20)]
