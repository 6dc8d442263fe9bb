"""An event loop in virtual time, and processes in it that can be frozen or killed between any two of their turns."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
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


class _Turn(asyncio.TimerHandle):
    """One callback of a process, or of nobody; made without what only people who debug need."""

    __slots__ = ("process",)
    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]
    _cancelled: bool
    _context: contextvars.Context
    _loop: VirtualLoop
    _when: float

    def __init__(  # its base's is not called: most of all that a run does is to make these
        self,
        loop: VirtualLoop,
        when_s: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self._loop = loop
        self._when = when_s
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self.process = context.get(PROCESS)

    def __repr__(self) -> str:
        return f"<turn of {self.process.name if self.process is not None else 'nobody'}: {self._callback}>"

    def cancel(self) -> None:
        """See ``asyncio.Handle``."""
        self._cancelled, self._callback, self._args = True, None, ()

    def again(self) -> None:
        """It was kept, and has its turn now."""
        self._loop.ready.append(self)

    def take(self) -> None:
        """Runs it, or lets its process keep it."""
        process = self.process
        if self._cancelled or self._callback is None:
            return
        if process is not None and (process.frozen or process.dead):
            process.hold(self)
            return
        try:
            self._context.run(self._callback, *self._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler({"message": f"in {self!r}", "exception": error})


class VirtualLoop(asyncio.BaseEventLoop):
    """Time jumps to the next timer when nothing is ready; work for other threads runs at once, in this one.

    Nothing in it depends on the machine: the same program does the same in the same order, always. Timers of the same
    time run in the order in which they were set.
    """

    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.ready: deque[_Turn] = deque()
        self.errors: list[str] = []
        self._now_s = 1000.0
        self._timers: list[tuple[float, int, _Turn]] = []
        self._timers_set = 0
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See ``asyncio``; the turn belongs to the process of its context."""
        turn = _Turn(self, self._now_s, callback, args, contextvars.copy_context() if context is None else context)
        self.ready.append(turn)
        return turn

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See ``asyncio``; there are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See ``asyncio``."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See ``asyncio``; the turn belongs to the process of its context."""
        turn = _Turn(self, when, callback, args, contextvars.copy_context() if context is None else context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, turn))
        return turn

    def run_in_executor(self, executor: Any, func: Callable[..., R], *args: Any) -> asyncio.Future[R]:  # type: ignore[override]
        """Runs it here and now: a thread would make the order depend on the machine."""
        future: asyncio.Future[R] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Nothing is ever there to read. If this were refused, gRPC would call later tests' loops from a thread."""

    def remove_reader(self, fd: Any) -> bool:
        """There is none."""
        return False

    async def shutdown_default_executor(self, *args: Any) -> None:
        """There is none."""

    def _run_once(self) -> None:
        """What the loop of asyncio calls again and again: everything that is ready, and then the next timer."""
        ready, timers = self.ready, self._timers
        if not ready and not self._stopping:
            self._jump()
        while timers and timers[0][0] <= self._now_s:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            ready.popleft().take()

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise NothingLeftError(f"nothing will ever happen after {self._now_s:.3f} s")
        if self._now_s > LONGEST_RUN_S:
            raise NothingLeftError("the run does not end")
        self._now_s = max(self._now_s, timers[0][0])

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
