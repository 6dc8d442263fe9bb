"""Messages between ranks that are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from waiting import PATIENCE_S

T = TypeVar("T")


class Mail:
    """One message: there when both ends named it."""

    def __init__(self) -> None:
        self.sent: torch.Tensor | None = None
        self.wanted: torch.Tensor | None = None
        self.arrived = threading.Event()


class MailWork:
    """Implements ``Work``."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    def done(self) -> bool:
        return self._mail.arrived.is_set()

    def done_within(self, timeout_s: float) -> bool:
        return self._mail.arrived.wait(timeout_s)

    def error(self) -> str:
        return ""


class PostOffice:
    """What all ranks share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent_bytes = 0
        self._lock = threading.Lock()
        self._mails: dict[tuple[int, int, int], Mail] = {}

    def meet(self, way: tuple[int, int, int], *, sent: torch.Tensor | None, wanted: torch.Tensor | None) -> Mail:
        with self._lock:
            mail = self._mails.setdefault(way, Mail())
            if sent is not None:
                assert mail.sent is None, f"{way} was sent twice"
                mail.sent = sent
                self.sent_bytes += sent.numel()
            if wanted is not None:
                assert mail.wanted is None, f"{way} was wanted twice"
                mail.wanted = wanted
            if mail.sent is not None and mail.wanted is not None:
                mail.wanted.copy_(mail.sent)
                mail.arrived.set()
            return mail

    @property
    def left(self) -> list[tuple[int, int, int]]:
        """Messages with one end only."""
        return [way for way, mail in self._mails.items() if not mail.arrived.is_set()]


class MemoryExchange:
    """Implements ``Exchange``."""

    def __init__(self, office: PostOffice, rank: int) -> None:
        self.rank = rank
        self.size = office.size
        self.device = torch.device("cpu")
        self._office = office

    def send(self, buffer: torch.Tensor, destination: int, tag: int) -> MailWork:
        return MailWork(self._office.meet((self.rank, destination, tag), sent=buffer, wanted=None))

    def receive(self, buffer: torch.Tensor, source: int, tag: int) -> MailWork:
        return MailWork(self._office.meet((source, self.rank, tag), sent=None, wanted=buffer))


def at_once(office: PostOffice, work: Callable[[MemoryExchange], T]) -> Sequence[T | Exception]:
    """What each rank's work gave, or raised. Nobody waits for ever."""

    def one(rank: int) -> T | Exception:
        try:
            return work(MemoryExchange(office, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(office.size) as pool:
        begun = [pool.submit(one, rank) for rank in range(office.size)]
        return [done.result(PATIENCE_S) for done in begun]
