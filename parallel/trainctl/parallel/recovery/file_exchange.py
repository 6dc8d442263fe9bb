"""Files of a snapshot from rank to rank: first what comes, then the bytes, with a few messages in flight.

What is sent and received is given as lanes: iterators of work, each to be resumed when its work is done. So one thread
sends to and receives from several ranks at once, and may be stopped between two messages.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from trainctl.checkpoint.callbacks import unseen
from trainctl.checkpoint.exchange.lanes import MESSAGE_BYTES, Lane, ahead
from trainctl.checkpoint.exchange.port import Work
from trainctl.checkpoint.live.tensors import byte_view
from trainctl.core.errors import InternalError
from trainctl.core.system.files import make_folder, sync_folder
from trainctl.parallel.collectives.port import Group


class FileExchange:
    """One rank's end; every bundle that is sent has to be received, in the same order.

    Args:
        group: over which; nothing else is sent between two ranks with these tags, counted from 0.

    Attributes:
        received_bytes: by rank that they came from.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()
        self.received_bytes: Counter[int] = Counter()

    def send(
        self, folder: Path, paths: Sequence[str], destination: int, *, reach: Callable[[int], None] = unseen
    ) -> Lane:
        """Sends a bundle of files of ``folder``, maybe none.

        Args:
            folder: where from.
            paths: of the files in it.
            destination: to whom.
            reach: fault point, called with the number of each message, from 0, before it is sent.

        Raises:
            OSError: a file cannot be read.
        """
        index = [[path, (folder / path).stat().st_size] for path in paths]
        told = json.dumps(index).encode()
        reach(0)
        yield self._send(torch.tensor([len(told)]), destination)
        reach(1)
        yield self._send(torch.frombuffer(bytearray(told), dtype=torch.uint8), destination)
        yield from ahead(self._contents(folder, paths, destination, reach))

    def receive(
        self,
        folder: Path,
        source: int,
        *,
        got: Callable[[int], None] = unseen,
        reach: Callable[[int], None] = unseen,
    ) -> Lane:
        """Receives a bundle into ``folder``; each file gets its name when it is whole.

        Args:
            folder: where to.
            source: from whom.
            got: told the size of each message that is there.
            reach: fault point, called with the number of each message, from 0, when it is there and nothing of it is
                written yet.

        Raises:
            OSError: a file could not be written; the rest of the bundle was received all the same, and thrown away.
            InternalError: a name leads out of the folder.
        """
        size = torch.zeros(1, dtype=torch.int64)
        yield from self._receive_into(size, source)
        reach(0)
        told = torch.zeros(int(size.item()), dtype=torch.uint8)
        yield from self._receive_into(told, source)
        reach(1)
        number, failure = 2, None
        for path, size_bytes in json.loads(bytes(told.numpy())):
            file = _Incoming(folder, path)
            for work, staged in ahead(self._posted(size_bytes, source)):
                yield work
                reach(number)
                number, failure = number + 1, failure or file.take(staged)
                got(staged.numel())
            failure = failure or file.finish()
            self.received_bytes[source] += size_bytes
        if failure is not None:
            raise failure

    def _contents(self, folder: Path, paths: Sequence[str], destination: int, reach: Callable[[int], None]) -> Lane:
        for number, chunk in enumerate(_chunks(folder, paths), start=2):
            reach(number)
            yield self._send(chunk, destination)

    def _posted(self, size_bytes: int, source: int) -> Iterator[tuple[Work, Tensor]]:
        for begin in range(0, size_bytes, MESSAGE_BYTES):
            count = min(MESSAGE_BYTES, size_bytes - begin)
            yield self._receive(torch.empty(count, dtype=torch.uint8), source)

    def _send(self, data: Tensor, destination: int) -> Work:
        tag = self._sent[destination]
        self._sent[destination] += 1
        return self._group.send(data.to(self._group.device), destination, tag)

    def _receive(self, like: Tensor, source: int) -> tuple[Work, Tensor]:
        staged = torch.empty_like(like, device=self._group.device)
        tag = self._received[source]
        self._received[source] += 1
        return self._group.receive(staged, source, tag), staged

    def _receive_into(self, target: Tensor, source: int) -> Lane:
        work, staged = self._receive(target, source)
        yield work
        target.copy_(staged)


class _Incoming:
    """A file that is being received; once writing failed, nothing more is written."""

    def __init__(self, folder: Path, path: str) -> None:
        name = PurePosixPath(path)
        if name.is_absolute() or ".." in name.parts:
            raise InternalError(f"expected the name of a file inside a snapshot, found {path!r}")
        self._target = folder / path
        self._partial = self._target.with_name(f".{self._target.name}.part")
        self._file: BinaryIO | None = None
        self._failed = False

    def take(self, data: Tensor) -> OSError | None:
        """Appends."""
        return self._guarded(lambda file: file.write(byte_view(data.cpu())))

    def finish(self) -> OSError | None:
        """All is there."""

        def close(file: BinaryIO) -> None:
            file.flush()
            os.fsync(file.fileno())  # on a disk it shall outlive the machine
            file.close()
            self._partial.rename(self._target)
            sync_folder(self._target.parent)

        return self._guarded(close)

    def _guarded(self, do: Callable[[BinaryIO], object]) -> OSError | None:
        if self._failed:
            return None
        try:
            if self._file is None:
                make_folder(self._target.parent)
                self._file = open(self._partial, "wb")  # noqa: SIM115 - it stays open between messages
            do(self._file)
        except OSError as error:
            self._failed = True
            if self._file is not None:
                with contextlib.suppress(OSError):  # it tries once more to write what is left
                    self._file.close()
            self._partial.unlink(missing_ok=True)
            return error
        return None


def _chunks(folder: Path, paths: Sequence[str]) -> Iterator[Tensor]:
    for path in paths:
        with open(folder / path, "rb", buffering=0) as file:
            while data := file.read(MESSAGE_BYTES):
                yield torch.frombuffer(bytearray(data), dtype=torch.uint8)
