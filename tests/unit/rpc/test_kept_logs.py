"""Without it logs of a job that is over could be out of order or cut, or break the command that asks for them."""

from __future__ import annotations

from pathlib import Path

from trainctl.controller.rpc.kept_logs import NODE, kept_logs
from trainctl.controller.rpc.log_relay import LogQuery


def write(folder: Path, **files: list[str]) -> str:
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        path = logs / f"{name.lstrip('_').replace('_', '-', 1).replace('_', '.')}.log"
        path.write_text("".join(f"{line}\n" for line in lines))
    return str(folder)


def read(records: str, known: set[tuple[int, int]] | None = None, **query: object) -> list[tuple[int, int, str]]:
    wanted = LogQuery(job_uid="u", **query)  # type: ignore[arg-type]
    chunks = kept_logs(records, wanted, known or set())
    return [(chunk.slot, chunk.incarnation, line) for chunk in chunks for line in chunk.lines]


def test_the_newest_lines_of_each_slot_over_all_its_lives_and_parts(tmp_path: Path) -> None:
    records = write(tmp_path, _0_1=["a", "b"], _0_12=["c"], _0_12_1=["d", "e"], _0_12_10=["f"], _3_2=["x", "y"])
    everything = [(0, 1, "a"), (0, 1, "b"), *((0, 12, text) for text in "cdef"), (3, 2, "x"), (3, 2, "y")]
    assert read(records) == everything
    assert read(records, tail_lines=5) == everything[1:]
    assert read(records, tail_lines=1) == [(0, 12, "f"), (3, 2, "y")]
    assert read(records, slots=(3,)) == everything[-2:]
    assert read(records, incarnation=1) == everything[:2]
    assert read(records, known={(0, 12), (3, 2)}) == everything[:2]


def test_only_lines_that_are_not_too_old(tmp_path: Path) -> None:
    stamps = [f"1970-01-01T00:00:0{second}.500Z line {second}" for second in range(5)]
    records = write(tmp_path, _0_1=stamps)
    assert [line for _, _, line in read(records, since_s=2.25)] == stamps[2:]
    assert read(records, since_s=100.0) == []


def test_long_logs_come_in_chunks(tmp_path: Path) -> None:
    records = write(tmp_path, _0_1=[str(number) for number in range(1234)])
    chunks = kept_logs(records, LogQuery(job_uid="u"), set())
    assert [len(chunk.lines) for chunk in chunks] == [500, 500, 234]
    assert [line for chunk in chunks for line in chunk.lines] == [str(number) for number in range(1234)]


def test_what_is_not_there_or_no_log_is_nothing(tmp_path: Path) -> None:
    assert kept_logs("", LogQuery(job_uid="u"), set()) == []
    assert read(str(tmp_path / "nowhere")) == []
    records = write(tmp_path, _0_1=[])
    (tmp_path / "logs" / "notes.log").write_text("x\n")
    assert read(records) == []


def test_a_storage_that_cannot_be_read_says_so_in_a_line() -> None:
    (chunk,) = kept_logs("nosuch://bucket/x", LogQuery(job_uid="u"), set())
    assert chunk.node == NODE
    assert "[the logs in nosuch://bucket/x cannot be read:" in chunk.lines[0]


def test_a_link_that_a_job_left_shows_nothing_of_the_controllers(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("the controller's own\n")
    records = write(tmp_path / "records", _0_1=["a"])
    (tmp_path / "records" / "logs" / "1-1.log").symlink_to(token)
    (chunk,) = kept_logs(records, LogQuery(job_uid="u"), set())
    assert chunk.lines == [
        f"[the logs in {records} cannot be read: [Errno 1] a link leads out of the folder: '{records}/logs/1-1.log']"
    ]
