"""How far a hook came, written down beside the records, so that its successor on another worker goes on from there."""

from __future__ import annotations

import json
import time
from typing import Protocol

from trainctl.checkpoint.storage.line_log import LineLog
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import TrainctlError
from trainctl.core.json_text import NoJsonError, parse_object
from trainctl.core.records.places import DELIVERED

Position = tuple[int, int]
"""Lineage and step. Greater is later: a lineage goes on, or goes back, from an older one."""
START: Position = (0, 0)
_PART_BYTES = 16 * 1024
_REMOTE_EVERY_S = 5.0
"""An object store takes money and a moment for each write."""


def position_in(line: bytes) -> Position:
    """Lineage and step that a line of JSON names.

    Raises:
        NoJsonError: it names none.
    """
    named = parse_object(line)
    try:
        return int(named["lineage"]), int(named["step"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise NoJsonError(f"expected lineage and step, found {named}") from error


class Delivered(Protocol):
    """Remembers the newest position that a hook has finished with."""

    def read(self) -> Position:
        """What was written last; ``START`` if nothing was."""
        ...

    def write(self, position: Position, *, last: bool) -> None:
        """The hook finished with ``position``; ``last``: nothing follows, so it must not be put off."""
        ...


class Forgetful:
    """Implements ``Delivered`` for a hook that finds out by itself, and where there are no records."""

    def read(self) -> Position:
        """Always the start."""
        return START

    def write(self, position: Position, *, last: bool) -> None:
        """Nobody will ask."""


class DeliveredFile:
    """Implements ``Delivered`` with a few lines among the job's records; what the storage refuses costs a repetition.

    Args:
        records: folder or URI of the records.
        name: of the hook.
    """

    def __init__(self, records: str, name: str) -> None:
        self._records = records
        self._name = name
        self._every_s = _REMOTE_EVERY_S if "://" in records else 0.0
        self._due_s = 0.0
        self._newest = START
        self._log: LineLog | None = None

    def read(self) -> Position:
        """What the newest line says."""
        try:
            lines = self._open().splitlines()
            self._newest = position_in(lines[-1]) if lines else START
        except (OSError, TrainctlError, NoJsonError):
            self._log = None
        return self._newest

    def write(self, position: Position, *, last: bool) -> None:
        """Adds a line; on an object store only every few seconds."""
        now_s = time.monotonic()
        if position == self._newest or (now_s < self._due_s and not last):
            return
        self._due_s = now_s + self._every_s
        try:
            if self._log is None:
                self._open()
            assert self._log is not None
            self._log.append(json.dumps({"lineage": position[0], "step": position[1]}).encode() + b"\n")
            self._newest = position
        except (OSError, TrainctlError):
            self._log = None

    def _open(self) -> bytes:
        storage = open_storage(self._records)
        self._log = LineLog(
            storage, f"{DELIVERED}/{self._name}", ".jsonl", part_bytes=_PART_BYTES, max_bytes=2 * _PART_BYTES
        )
        return self._log.open()
