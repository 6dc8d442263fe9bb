"""Tracebacks that begin where the user's own code does, not with the frames that called it."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from types import FrameType, TracebackType

_OURS = "trainctl"
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


def begin_with_user(error: BaseException) -> None:
    """Cuts what stands before the first frame of the user's own code, in the traceback and in those of its causes.

    One without such a frame stays as it is: then where we are is all that there is to say.
    """
    for link in _chain(error):
        first = next((tb for tb in _tracebacks(link.__traceback__) if _is_users(tb.tb_frame)), None)
        if first is not None:
            link.__traceback__ = first


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it came from; each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [origin for origin in (link.__cause__, link.__context__) if origin is not None]


def _tracebacks(first: TracebackType | None) -> Iterator[TracebackType]:
    while first is not None:
        yield first
        first = first.tb_next


def _is_users(frame: FrameType) -> bool:
    """Whether the frame is neither ours nor of anything that is installed."""
    module, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    installed = tuple(sysconfig.get_path(name) for name in _INSTALLED)
    return module.partition(".")[0] != _OURS and not file.startswith(("<frozen ", *installed))
