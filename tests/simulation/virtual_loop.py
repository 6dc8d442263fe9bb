"""An event loop in virtual time, and processes in it that can be frozen or killed between any two of their turns."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

R = TypeVar("R")

OUTSIDE = contextvars.Context()
"""Of what belongs to no process: the network, the store, whoever makes faults."""
LONGEST_RUN_S = 1e8
_BURIALS = 100


class NothingLeftError(RuntimeError):
    """Nothing is ready and no timer runs: in the real world everybody would wait for ever."""


class KilledError(BaseException):
    """Ends the turn of a process that is killed in the middle of it."""


class Process:
    """Code that lives and dies together: whatever runs in its context, timers and answers included."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._held: deque[_Turn] = deque()
        self._context = contextvars.Context()
        self._context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Runs ``work`` as a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Runs a callback in this process, when it next has a turn."""
        asyncio.get_running_loop().call_soon(callback, *args, context=self._context.copy())

    def freeze(self) -> None:
        """SIGSTOP: nothing of it runs; what becomes due waits."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: what became due meanwhile runs, in that order."""
        self.frozen = False
        while not self.dead and self._held:
            self._held.popleft().again()

    def kill(self) -> None:
        """SIGKILL: nothing of it ever runs again, until it is buried."""
        self.dead, self.frozen = True, False

    def hold(self, turn: _Turn) -> None:
        """Keeps a turn for later."""
        self._held.append(turn)

    async def bury(self) -> None:
        """Ends all its tasks once the run is over, so that no generator is left to the garbage collector."""
        self.dead = False
        self.thaw()
        for _ in range(_BURIALS):
            tasks = list(self.tasks)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            # Again and again: who ends a task of its own while it is cancelled itself may take it for that one's end.
            await asyncio.wait(tasks, timeout=1.0)
        raise AssertionError(f"{self.name}: these do not end: {list(self.tasks)}")


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Turn:
    """One callback of a process."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    def __init__(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        process = self.process
        if self.handle is not None and self.handle.cancelled():
            return
        if process.frozen or process.dead:
            process.hold(self)
            return
        self.callback(*self.args)

    def again(self) -> None:
        asyncio.get_running_loop().call_soon(self, context=self.context)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer when nothing is ready; work for other threads runs at once, in this one.

    Nothing in it depends on the machine: the same program does the same in the same order, always.
    """

    def __init__(self) -> None:
        self._now_s = 1000.0
        super().__init__(_NoIo(self._jump))
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._note)
        self.errors: list[str] = []
        self.jumps = 0

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See ``asyncio``; the turn belongs to the process of its context."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        turn = callback if isinstance(callback, _Turn) else _Turn(process, callback, args, context)
        handle = super().call_soon(turn, context=context)
        turn.handle = turn.handle or handle
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See ``asyncio``; the turn belongs to the process of its context."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        turn = _Turn(process, callback, args, context)
        turn.handle = handle = super().call_at(when, turn, context=context)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., R], *args: Any) -> asyncio.Future[R]:  # type: ignore[override]
        """Runs it here and now: a thread would make the order depend on the machine."""
        future: asyncio.Future[R] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """There is none."""

    def _jump(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise NothingLeftError(f"nothing will ever happen after {self._now_s:.3f} s")
        if self._now_s > LONGEST_RUN_S:
            raise NothingLeftError("the run does not end")
        self._now_s += timeout_s
        self.jumps += 1

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, KilledError):
            self.errors.append(f"{context['message']}: {error!r}")


def run_virtually(main: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Runs ``main`` to its end in a virtual loop of its own.

    Raises:
        AssertionError: something failed that nobody waited for.
    """
    loop = VirtualLoop()
    asyncio.set_event_loop(None)
    try:
        result = loop.run_until_complete(loop.create_task(main(), context=OUTSIDE.copy()))
        assert not loop.errors, loop.errors
        return result
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda done: process.tasks.pop(done, None), context=OUTSIDE)
    return task


class _NoIo(selectors.BaseSelector):
    """Knows of files but never finds one ready; instead of waiting it tells how long it would have waited."""

    def __init__(self, waited: Callable[[float | None], None]) -> None:
        self._waited = waited
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = selectors.SelectorKey(fileobj, number, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._waited(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys
