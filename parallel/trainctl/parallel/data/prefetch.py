"""The next batches, made by a thread while the loop computes. What is trained never depends on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar, cast

_LOOK_EVERY_S = 0.05
_JOIN_S = 5.0
B = TypeVar("B")
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """A batch, or what was raised instead."""

    batch: object = None
    error: BaseException | None = None


class Prefetcher(Generic[B]):
    """Gives batches by their sample ids, and makes those that come next ahead of time.

    A batch that nobody asks for any more, because the members of the job changed, is thrown away. An exception of the
    data set is raised by the ``take`` of that batch, with the traceback of where it came from; an exception of a batch
    that is never taken is nobody's business.

    Args:
        make: a batch from sample ids; called by one thread at a time.
        depth: batches to have ready; 0 makes each when it is asked for.
    """

    def __init__(self, make: Callable[[Sequence[int]], B], *, depth: int) -> None:
        self._make = make
        self._depth = depth
        self._changed = threading.Condition()
        self._wanted: list[Ids] = []
        self._ready: dict[Ids, _Made] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(
        self,
        sample_ids: Ids,
        upcoming: Iterable[Ids] = (),
        while_waiting: Callable[[float], None] = lambda _: None,
    ) -> B:
        """The batch of ``sample_ids``; afterwards those of ``upcoming`` are made, as many as the depth says.

        Args:
            sample_ids: of the batch.
            upcoming: what will be asked for next, as far as one can know.
            while_waiting: called in turn with the seconds waited so far; what it raises ends the wait.

        Raises:
            Exception: whatever the data set raised for this batch.
        """
        if self._depth == 0:
            return self._make(sample_ids)
        began_s = time.monotonic()
        with self._changed:
            self._plan([sample_ids, *(ids for ids in self._wanted if ids != sample_ids)])
        while (found := self._found(sample_ids)) is None:
            while_waiting(time.monotonic() - began_s)
        with self._changed:
            self._plan(list(islice(upcoming, self._depth)))
        if found.error is not None:
            raise found.error
        return cast("B", found.batch)

    def close(self) -> None:
        """Ends the thread after the batch it is at; does not wait long for a storage that hangs. Safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            self._thread = None

    def __enter__(self) -> Prefetcher[B]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(self, sample_ids: Ids) -> _Made | None:
        """A made batch, or None after a moment."""
        with self._changed:
            if sample_ids not in self._ready:
                self._changed.wait(_LOOK_EVERY_S)
            return self._ready.pop(sample_ids, None)

    def _plan(self, wanted: list[Ids]) -> None:
        """From now on these are wanted, in this order; everything else is dropped. The caller holds the lock."""
        self._wanted = wanted
        self._ready = {ids: made for ids, made in self._ready.items() if ids in wanted}
        self._changed.notify_all()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (sample_ids := self._next()) is not None:
            try:
                made = _Made(batch=self._make(sample_ids))
            except BaseException as error:  # raised where the batch is taken
                made = _Made(error=error)
            with self._changed:
                if sample_ids in self._wanted:
                    self._ready[sample_ids] = made
                    self._changed.notify_all()

    def _next(self) -> Ids | None:
        """Waits for a batch that is wanted and not there; None when closed."""
        with self._changed:
            while not self._closed:
                for sample_ids in self._wanted:
                    if sample_ids not in self._ready:
                        return sample_ids
                self._changed.wait()
            return None
