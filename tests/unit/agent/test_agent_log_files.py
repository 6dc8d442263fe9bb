from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainctl.agent.logs import files, streams
from trainctl.agent.logs.files import LogFile, log_path, tail
from trainctl.agent.logs.lines import CUT_MARK, MAX_LINE_BYTES, LineSplitter
from trainctl.agent.logs.store import LogStore
from trainctl.agent.logs.streams import LogStreams
from trainctl.agent.state import WorkerKey
from trainctl.protos.v1 import agent_pb2

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


def test_rotation_keeps_the_newest_parts(tmp_path: Path) -> None:
    path = log_path(tmp_path, "u", 0, 1)
    file = LogFile(path, max_bytes=50, max_old=2)
    for number in range(100):
        file.append([f"line {number}"])
    assert sorted(each.name for each in path.parent.iterdir()) in (
        ["0-1.log", "0-1.log.1", "0-1.log.2"],
        ["0-1.log.1", "0-1.log.2"],
    )
    texts = [line.text for line in tail(tmp_path, "u", slots=(), lines=0)]
    assert texts == [f"line {number}" for number in range(100 - len(texts), 100)]
    assert 10 <= len(texts) <= 30


def test_tail_spans_the_lives_of_a_slot(tmp_path: Path) -> None:
    for slot, incarnation in ((0, 1), (0, 2), (1, 3), (0, 10)):
        LogFile(log_path(tmp_path, "u", slot, incarnation)).append(["a", f"{slot}-{incarnation}"])
    found = tail(tmp_path, "u", slots=(0,), lines=3)
    assert [(line.incarnation, line.text) for line in found] == [(2, "0-2"), (10, "a"), (10, "0-10")]
    assert len(tail(tmp_path, "u", slots=(), lines=1)) == 2
    assert tail(tmp_path, "other", slots=(), lines=1) == []


def request(request_id: str = "r", *, tail_lines: int = 0, follow: bool = False) -> agent_pb2.LogRequest:
    return agent_pb2.LogRequest(request_id=request_id, job_uid="u", tail_lines=tail_lines, follow=follow)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


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
        lines: list[str] = []
        while (chunk := answers.take()) is not None:
            assert (chunk.slot, chunk.incarnation, chunk.end) == (0, 1, False)
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
        assert [len(chunk.lines) for chunk in chunks] == [200, 200, 100, 0]
        assert [chunk.end for chunk in chunks] == [False, False, False, True]
        await store.close()

    asyncio.run(scenario())


def test_a_slow_reader_is_told_what_it_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = LogStore(tmp_path)
        woken = asyncio.Event()
        answers = LogStreams(store, woken.set)
        answers.handle(request(follow=True))
        await woken.wait()
        await write(store, [f"{number}" for number in range(streams.MAX_WAITING_LINES + 7)])
        chunk = answers.take()
        assert chunk is not None
        assert "7 lines left out" in chunk.lines[0]
        assert chunk.lines[1] == "7"
        answers.clear()
        await store.close()

    asyncio.run(scenario())


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    class FullDisk(LogFile):
        def append(self, lines: object) -> int:
            raise OSError(28, "No space left on device")

    async def scenario() -> None:
        store = LogStore(tmp_path, make_file=lambda path: FullDisk(path))
        capture = store.capture(KEY)
        read_end, write_end = os.pipe()
        await asyncio.get_running_loop().connect_read_pipe(lambda: capture, os.fdopen(read_end, "rb"))
        os.write(write_end, b"one\ntwo\nthree")
        os.close(write_end)
        await capture.ended.wait()
        await until(lambda: store.lost_lines == 3)
        assert list(capture.tail) == ["one", "two", "three"]
        await store.close()

    asyncio.run(scenario())


def test_foreign_files_are_no_logs(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "notes.log").write_text("x\n")
    assert files.tail(tmp_path, "u", slots=(), lines=0) == []
