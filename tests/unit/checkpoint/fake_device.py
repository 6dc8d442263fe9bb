"""A device whose queues do what they were told in whatever order the waits between them leave open."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator

import torch

from trainctl.checkpoint.snapshot.copier import DeviceCopier

TRAINING, BESIDE = "training", "beside"
CPU = torch.device("cpu")
"""Of the tensors that the fake takes for its own."""


class FakeEvent:
    """Set when its queue comes to it."""

    def __init__(self, device: FakeDevice) -> None:
        self.done = False
        self._device = device

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self._device.synchronized += 1
        with self._device.queue(TRAINING):
            self._device.before_synchronize()
        while not self.done:
            assert self._device.turn(), "a queue waits for something that never comes"


class FakeDevice:
    """Implements ``Device``; nothing is done before ``turn``, or before somebody waits for an event.

    Args:
        order: which queue has the first turn, if both could go on; None: chance has it.
        seed: of the chance.
    """

    def __init__(self, order: tuple[str, str] | None = None, seed: int = 0) -> None:
        self._order, self._random = order, random.Random(seed)
        self._queues: dict[str, deque[tuple[str, Callable[[], bool]]]] = defaultdict(deque)
        self._here = threading.local()
        self.told: list[str] = []
        self.synchronized = 0
        self.copies_open = self.most_copies_open = 0
        self.before_synchronize: Callable[[], object] = lambda: None

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.copies_open += 1
        self.most_copies_open = max(self.most_copies_open, self.copies_open)

        def copied() -> bool:
            target.copy_(source)
            self.copies_open -= 1
            return True

        self._tell("copy", copied)

    def mark(self) -> FakeEvent:
        event = FakeEvent(self)

        def reached() -> bool:
            event.done = True
            return True

        self._tell("mark", reached)
        return event

    def wait(self, event: FakeEvent) -> None:
        self._tell("wait", event.query)

    def beside(self) -> contextlib.AbstractContextManager[None]:
        return self.queue(BESIDE)

    @contextlib.contextmanager
    def queue(self, name: str) -> Iterator[None]:
        """The calling thread's, in the block."""
        before, self._here.queue = self._queue, name
        try:
            yield
        finally:
            self._here.queue = before

    def train(self, change: Callable[[], object]) -> None:
        """Tells the training's queue to change something."""

        def changed() -> bool:
            change()
            return True

        self._tell("train", changed)

    def turn(self) -> bool:
        """One queue does one thing; whether any could."""
        order = self._order or self._random.sample((TRAINING, BESIDE), 2)
        for name in order:
            queue = self._queues[name]
            if queue and queue[0][1]():
                queue.popleft()
                return True
        return False

    def run(self) -> None:
        """Everything that it was told."""
        while self.turn():
            pass
        assert not any(self._queues.values()), "a queue waits for something that never comes"

    @property
    def _queue(self) -> str:
        return getattr(self._here, "queue", TRAINING)

    def _tell(self, what: str, do: Callable[[], bool]) -> None:
        self.told.append(f"{self._queue}: {what}")
        self._queues[self._queue].append((what, do))


FakeCopier = DeviceCopier[FakeEvent]


def copier(device: FakeDevice, kind: type[FakeCopier] = FakeCopier) -> FakeCopier:
    """Takes tensors of this machine's memory for the device's."""
    return kind({CPU: device})
