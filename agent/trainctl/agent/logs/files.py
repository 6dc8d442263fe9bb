"""Log files of workers: ``<root>/<job uid>/<slot>-<incarnation>.log`` and its older parts ``.log.<first line>``.

Lines are numbered from 1 over all parts, so that a reader can go on exactly where it was cut off, also after the oldest
part is gone. Everything here blocks; the agent calls it from one thread, so that appending and reading never overlap.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_OLD_FILES = 3
_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*")
_NAME = re.compile(r"(?P<log>(?P<slot>\d+)-(?P<incarnation>\d+)\.log)(?:\.(?P<first>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line and who printed it.

    Attributes:
        slot: worker slot.
        incarnation: worker life.
        text: the line behind the time at which the agent read it.
        number: from 1 in its log; 0 for what is not kept there.
    """

    slot: int
    incarnation: int
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What one ``append`` did: the number of its first line, and bytes."""

    first_number: int
    size_bytes: int


class LogFile:
    """The log of one worker life, rotated by size.

    Args:
        path: of the newest part; folders are made.
        max_bytes: size at which a new part is begun.
        max_old: older parts kept.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES, max_old: int = MAX_OLD_FILES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._max_old = max_old
        self._next = 0
        self._first = 0

    def append(self, lines: Sequence[str]) -> Written:
        """Appends all of the lines, or none.

        Raises:
            OSError: the disk is full or the folder is gone; the lines are lost.
        """
        data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._next:
            self._first = _first_of_newest(self.path)
            self._next = self._first + _count(self.path)
        with self.path.open("ab", buffering=0) as file:
            before_bytes = file.seek(0, 2)
            left = memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(before_bytes)  # half a line would shift the numbers of all that follow
                raise
        number = self._next
        self._next += len(lines)
        if before_bytes + len(data) >= self._max_bytes:
            self._rotate()
        return Written(number, len(data))

    def _rotate(self) -> None:
        self.path.replace(self.path.with_name(f"{self.path.name}.{self._first}"))
        self._first = self._next
        for _, part in _old_parts(self.path)[: -self._max_old]:
            part.unlink()


def remove_job(root: Path, job_uid: str) -> None:
    """Removes the folder of a job, if there is one and its name is a plain one.

    Raises:
        OSError: the disk refused.
    """
    folder = root / job_uid
    if _UID.fullmatch(job_uid) and folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def log_path(root: Path, job_uid: str, slot: int, incarnation: int) -> Path:
    """Where the log of one worker life lies."""
    return root / job_uid / f"{slot}-{incarnation}.log"


def find_logs(folder: Path) -> list[tuple[int, int, Path]]:
    """Slot, incarnation and path of each log in a job's folder, in this order."""
    found = {_NAME.fullmatch(path.name) for path in folder.glob("*.log*")}
    logs = {(int(m["slot"]), int(m["incarnation"]), folder / m["log"]) for m in found if m is not None}
    return sorted(logs)


def read_log(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is kept of a log, old to new."""
    number = 1
    parts = _old_parts(path)
    for first, part in [*parts, (0, path)]:
        number = first or number
        try:
            with part.open(encoding="utf-8", errors="replace", newline="\n") as file:
                for line in file:
                    yield number, line.rstrip("\n")
                    number += 1
        except FileNotFoundError:
            continue


def _old_parts(path: Path) -> list[tuple[int, Path]]:
    """Number of the first line, and path, of each rotated part, old to new."""
    found = [(_NAME.fullmatch(part.name), part) for part in path.parent.glob(f"{path.name}.*")]
    return sorted((int(match["first"]), part) for match, part in found if match is not None and match["first"])


def _first_of_newest(path: Path) -> int:
    old = _old_parts(path)
    return old[-1][0] + _count(old[-1][1]) if old else 1


def _count(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0
