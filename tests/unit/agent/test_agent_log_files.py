"""Without it logs could have torn, lost or doubled lines after a rotation, a restart or a full disk."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.agent.logs import streams
from trainctl.agent.logs.files import LogFile, LogLine, Written, log_path
from trainctl.agent.logs.lines import CUT_MARK, MAX_LINE_BYTES, LineSplitter
from trainctl.agent.logs.query import LogQuery, answer
from trainctl.agent.logs.store import LogStore
from trainctl.agent.logs.streams import LogStreams, query_of
from trainctl.agent.state import WorkerKey
from trainctl.protos.v1 import agent_pb2
from waiting import until_async

KEY = WorkerKey(job_uid="u", slot=0, incarnation=1)


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    def split(parts: list[bytes]) -> list[str]:
        splitter = LineSplitter()
        return [line for part in parts for line in splitter.feed(part)] + splitter.end()

    assert split(pieces) == split([b"".join(pieces)])


def test_long_lines_are_cut_and_the_next_one_is_whole() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(40) for line in splitter.feed(b"x" * 1000)]
    lines += splitter.feed(b"the rest\nnext\n")
    assert lines == ["x" * MAX_LINE_BYTES + CUT_MARK, "next"]
    assert splitter.feed(b"y" * 50_000 + b"\n") == ["y" * MAX_LINE_BYTES + CUT_MARK]


def test_only_the_last_state_of_a_progress_bar_is_kept() -> None:
    assert LineSplitter().feed(b"10%\r50%\r100%\nplain\r\n") == ["100%", "plain"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert LineSplitter().feed(b"\xff\n") == ["\N{REPLACEMENT CHARACTER}"]


def found(root: Path, **query: Any) -> list[LogLine]:
    return list(answer(root, LogQuery(job_uid="u", **query)).lines)


@given(st.lists(st.lists(st.text("ab", max_size=5), max_size=4), max_size=30), st.integers(1, 60), st.integers(1, 3))
def test_line_numbers_survive_rotation_and_a_new_writer(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], max_bytes: int, max_old: int
) -> None:
    root = tmp_path_factory.mktemp("logs")
    path = log_path(root, "u", 0, 1)
    file = LogFile(path, max_bytes=max_bytes, max_old=max_old)
    written: list[str] = []
    for index, batch in enumerate(batches):
        if index % 7 == 6:
            file = LogFile(path, max_bytes=max_bytes, max_old=max_old)  # the agent was started again
        assert file.append(batch).first_number == len(written) + 1
        written += batch
    assert len(list(path.parent.glob("*.log*"))) <= max_old + 1
    kept = found(root)
    assert [(line.number, line.text) for line in kept] == list(enumerate(written, 1))[len(written) - len(kept) :]


def test_rotation_keeps_the_newest_parts(tmp_path: Path) -> None:
    file = LogFile(log_path(tmp_path, "u", 0, 1), max_bytes=50, max_old=2)
    for number in range(100):
        file.append([f"line {number}"])
    texts = [line.text for line in found(tmp_path)]
    assert texts == [f"line {number}" for number in range(100 - len(texts), 100)]
    assert 10 <= len(texts) <= 30


def test_tail_spans_the_lives_of_a_slot(tmp_path: Path) -> None:
    for slot, incarnation in ((0, 1), (0, 2), (1, 3), (0, 10)):
        LogFile(log_path(tmp_path, "u", slot, incarnation)).append(["a", f"{slot}-{incarnation}"])
    newest = answer(tmp_path, LogQuery(job_uid="u", slots=frozenset((0,)), lines=3))
    assert [(line.incarnation, line.text) for line in newest.lines] == [(2, "0-2"), (10, "a"), (10, "0-10")]
    assert newest.starts == {(0, 1): 2, (0, 2): 1, (0, 10): 0}
    assert len(found(tmp_path, lines=1)) == 2
    assert [line.text for line in found(tmp_path, incarnation=2)] == ["a", "0-2"]
    assert answer(tmp_path, LogQuery(job_uid="other")).lines == ()


@given(st.data())
def test_going_on_from_any_position_gives_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("logs")
    files = {life: LogFile(log_path(root, "u", *life)) for life in ((0, 1), (0, 2), (1, 3))}

    def write(life: tuple[int, int], count: int) -> list[tuple[int, int]]:
        numbers = []
        for _ in range(count):
            numbers.append((life[1], files[life].append(["x"]).first_number))
        return numbers

    before = {life: write(life, data.draw(st.integers(0, 4))) for life in list(files)[:2]}
    tail = data.draw(st.integers(1, 6))
    first = answer(root, LogQuery(job_uid="u", lines=tail))
    shown = first.lines[: data.draw(st.integers(0, len(first.lines)))]  # then the stream broke
    positions = dict(first.starts) | {(line.slot, line.incarnation): line.number for line in shown}
    after = [entry for life in files for entry in write(life, data.draw(st.integers(0, 9)))]
    rest = answer(root, LogQuery(job_uid="u", lines=tail, positions=positions, resumed=True))
    seen = [(line.incarnation, line.number) for line in (*shown, *rest.lines)]
    old = [entry for life in before for entry in before[life]]
    assert sorted(seen) == sorted([*old[len(old) - min(tail, len(old)) :], *after])


def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    file = LogFile(log_path(tmp_path, "u", 0, 1))
    stamps = [f"2026-01-31T12:00:0{second}.000Z" for second in range(5)]
    file.append([f"{stamp} {index}" for index, stamp in enumerate(stamps)])
    newer = answer(tmp_path, LogQuery(job_uid="u", since=stamps[3]))
    assert [line.text[-1] for line in newer.lines] == ["3", "4"]
    assert newer.starts == {(0, 1): 3}
    noon = datetime.fromisoformat(stamps[3]).timestamp()
    assert query_of(agent_pb2.LogRequest(job_uid="u", since_s=noon)).since == stamps[3]


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    file = LogFile(log_path(tmp_path, "u", 0, 1))
    file.append(["whole"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            file.append(["x" * 20])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert file.append(["next"]).first_number == 2
    assert [line.text for line in found(tmp_path)] == ["whole", "next"]


def request(request_id: str = "r", *, tail_lines: int = 0, follow: bool = False) -> agent_pb2.LogRequest:
    return agent_pb2.LogRequest(request_id=request_id, job_uid="u", tail_lines=tail_lines, follow=follow)


async def write(store: LogStore, lines: list[str]) -> None:
    done = asyncio.Event()
    store.append(KEY, LogFile(store.path_of(KEY)), lines, done.set)
    await done.wait()


def test_a_follower_gets_the_tail_and_then_each_line_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = LogStore(tmp_path)
        answers = LogStreams(store, lambda: None)
        await write(store, ["old", "tail"])
        answers.handle(request(tail_lines=1, follow=True))
        pending = [asyncio.create_task(write(store, [f"new {number}"])) for number in range(50)]
        await asyncio.gather(*pending)
        start = answers.take()
        assert start is not None
        assert start.begun
        assert [(p.slot, p.incarnation, p.line) for p in start.starts] == [(0, 1, 1)]
        lines: list[str] = []
        while (chunk := answers.take()) is not None:
            assert (chunk.slot, chunk.incarnation, chunk.end) == (0, 1, False)
            assert chunk.first_line == 2 + len(lines)
            lines += chunk.lines
        assert lines == ["tail", *(f"new {number}" for number in range(50))]
        answers.clear()
        await store.close()

    asyncio.run(scenario())


def test_a_request_without_follow_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = LogStore(tmp_path)
        woken = asyncio.Event()
        answers = LogStreams(store, woken.set)
        await write(store, [f"{number}" for number in range(500)])
        answers.handle(request())
        await woken.wait()
        chunks = []
        while (chunk := answers.take()) is not None:
            chunks.append(chunk)
        assert [len(chunk.lines) for chunk in chunks] == [0, 200, 200, 100, 0]
        assert [chunk.end for chunk in chunks] == [False, False, False, False, True]
        await store.close()

    asyncio.run(scenario())


def test_a_slow_reader_sees_by_the_number_what_it_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = LogStore(tmp_path)
        woken = asyncio.Event()
        answers = LogStreams(store, woken.set)
        answers.handle(request(follow=True))
        await woken.wait()
        await write(store, [f"{number}" for number in range(streams.MAX_WAITING_LINES + 7)])
        start, chunk = answers.take(), answers.take()
        assert start is not None
        assert chunk is not None
        assert start.begun
        assert (chunk.lines[0], chunk.first_line) == ("7", 8)
        answers.clear()
        await store.close()

    asyncio.run(scenario())


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    class FullDisk(LogFile):
        def append(self, lines: object) -> Written:
            raise OSError(28, "No space left on device")

    async def scenario() -> None:
        store = LogStore(tmp_path, make_file=lambda path: FullDisk(path))
        capture = store.capture(KEY)
        read_end, write_end = os.pipe()
        await asyncio.get_running_loop().connect_read_pipe(lambda: capture, os.fdopen(read_end, "rb"))
        os.write(write_end, b"one\ntwo\nthree")
        os.close(write_end)
        await capture.ended.wait()
        await until_async(lambda: store.lost_lines == 3)
        assert list(capture.tail) == ["one", "two", "three"]
        await store.close()

    asyncio.run(scenario())


def test_foreign_files_are_no_logs(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "notes.log").write_text("x\n")
    assert found(tmp_path) == []
