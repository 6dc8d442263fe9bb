"""Operations of torch's process groups as ``Work``, whatever the transport."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from trainctl.checkpoint.exchange.watched import why_failed
from trainctl.core.system.deadline import Deadline

_FIRST_NAP_S = 0.0001
_LONGEST_NAP_S = 0.002


class CollectiveWork:
    """A collective in flight, and the buffers it may write to."""

    def __init__(self, work: Any, buffers: tuple[Tensor, ...]) -> None:
        self._work = work
        self._buffers = buffers

    def done(self) -> bool:
        """Whether torch ended it."""
        return bool(self._work.is_completed())

    def done_within(self, timeout_s: float) -> bool:
        """See ``Work``. Polls: a Python callback from one of gloo's threads could hang the end of a process."""
        deadline = Deadline(timeout_s)
        nap_s = _FIRST_NAP_S
        while not self.done():
            if deadline.over:
                return False
            time.sleep(nap_s)
            nap_s = min(nap_s * 2, _LONGEST_NAP_S)
        return True

    def error(self) -> str:
        """Torch's own words, or nothing."""
        return why_failed(self._work)


def started(operation: Any, *arguments: object) -> Any:
    """Starts an operation of a process group; one that refuses at once, as a broken gloo does, has failed."""
    try:
        return operation(*arguments)
    except RuntimeError as error:
        return _Refused(error)


class _Refused:
    """A ``c10d.Work`` that failed before it began."""

    def __init__(self, error: RuntimeError) -> None:
        self._error = error

    def is_completed(self) -> bool:
        return True

    def wait(self) -> None:
        raise self._error
