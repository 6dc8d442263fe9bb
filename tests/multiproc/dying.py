"""Children that are killed in the middle of what they do to files: before a certain call, or half way through a write.

A child is a fork of the test's process, so it costs a few milliseconds. Its calls are seen where they leave Python:
those that open to write, make, link, rename, remove and cut by audit events, which nothing in Python gets around; those
that write and sync, which have none, by functions in their place.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

_EVENTS = ("os.mkdir", "os.link", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.truncate")
_WITHOUT_EVENT = ("pwritev", "pwrite", "write", "fsync", "fdatasync")
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PAGE_BYTES = 4096


def calls_of(act: Callable[[], object]) -> list[str]:
    """The calls that change files, by name and in order, of a child that does ``act`` and is left alone."""
    reading, writing = os.pipe()
    seen: list[str] = []

    def told() -> None:
        _look_on(seen.append)
        act()
        names = list(seen)
        os.set_blocking(writing, True)
        with open(writing, "w") as pipe:
            json.dump(names, pipe)

    with open(reading) as pipe:
        pid = _forked(told)
        os.close(writing)
        found: list[str] = json.loads(pipe.read() or "[]")
    assert not _was_killed(pid)
    return found


def dies(act: Callable[[], object], *, before: int | None = None, torn: int | None = None) -> bool:
    """Whether a child that does ``act`` was killed by SIGKILL; otherwise it came to its end, without an error.

    Args:
        act: what it does.
        before: it is killed before this one of its calls, counted from 0.
        torn: it is killed when half of the bytes of this one of its writes, counted from 0, are in the file.
    """

    def body() -> None:
        if before is not None:
            _kill_before(before)
        if torn is not None:
            _tear(torn)
        act()

    return _was_killed(_forked(body))


def _forked(body: Callable[[], None]) -> int:
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        try:
            gc.freeze()  # what the parent let go of, sockets for example, is its own to close
            torch.set_num_threads(1)  # a pool of threads is not there after a fork
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
    os._exit(code)


def _was_killed(pid: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}: see stderr"
    return code != 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_before(number: int) -> None:
    lock, left = threading.Lock(), number

    def look(name: str) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left < 0:
                _die()

    _look_on(look)


def _look_on(look: Callable[[str], object]) -> None:
    """From now on ``look`` is told of each call before it is made."""

    def event(name: str, arguments: tuple[Any, ...]) -> None:
        if name in _EVENTS or (name == "open" and isinstance(arguments[2], int) and arguments[2] & _TO_WRITE):
            look(name)

    def followed(name: str) -> None:
        plainly = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            look(name)
            return plainly(*arguments, **options)

        setattr(os, name, call)

    for name in _WITHOUT_EVENT:
        followed(name)
    sys.addaudithook(event)


def _tear(number: int) -> None:
    plainly, lock, left = os.pwritev, threading.Lock(), number

    def pwritev(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal left
        with lock:
            left -= 1
            if left >= 0:
                return plainly(descriptor, buffers, offset)
            half = sum(len(buffer) for buffer in buffers) // 2
            half = half // _PAGE_BYTES * _PAGE_BYTES or half  # past the cache only pages can be written
            for buffer in buffers:
                taken = memoryview(buffer)[:half]
                with contextlib.suppress(OSError):  # less than a page, past the cache: none of it
                    offset += plainly(descriptor, [taken], offset)
                half -= len(taken)
            _die()
            raise AssertionError

    setattr(os, "pwritev", pwritev)  # noqa: B010 - mypy knows it with fewer kinds of buffers
