"""Log files of workers: ``<root>/<job uid>/<slot>-<incarnation>.log`` and its older parts ``.1``, ``.2``, ...

Everything here blocks; the agent calls it from one thread, so that appending and reading never overlap.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_OLD_FILES = 3
MAX_TAIL_LINES = 50_000
_NAME = re.compile(r"(\d+)-(\d+)\.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line and who printed it."""

    slot: int
    incarnation: int
    text: str


class LogFile:
    """The log of one worker, rotated by size.

    Args:
        path: of the newest part; folders are made.
        max_bytes: size at which a new part is begun.
        max_old: older parts kept.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES, max_old: int = MAX_OLD_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_old = max_old

    def append(self, lines: Sequence[str]) -> int:
        """Appends lines and returns the bytes written.

        Raises:
            OSError: the disk is full or the folder is gone; the lines are lost.
        """
        data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(data)
            size_bytes = file.tell()
        if size_bytes >= self._max_bytes:
            self._rotate()
        return len(data)

    def _rotate(self) -> None:
        for number in range(self._max_old, 0, -1):
            newer = _part(self._path, number - 1)
            if newer.exists():
                newer.replace(_part(self._path, number))


def tail(root: Path, job_uid: str, *, slots: Sequence[int], lines: int) -> list[LogLine]:
    """The newest lines of each slot, over all its incarnations, old to new.

    Args:
        root: folder of all logs.
        job_uid: the job.
        slots: which ones; empty for all.
        lines: of each slot; 0 for all that are kept (at most ``MAX_TAIL_LINES``).
    """
    found: list[LogLine] = []
    for slot, logs in sorted(_logs(root / job_uid).items()):
        if not slots or slot in slots:
            newest: deque[LogLine] = deque(maxlen=min(lines or MAX_TAIL_LINES, MAX_TAIL_LINES))
            for incarnation, path in sorted(logs):
                newest.extend(LogLine(slot=slot, incarnation=incarnation, text=text) for text in _read(path))
            found += newest
    return found


def log_path(root: Path, job_uid: str, slot: int, incarnation: int) -> Path:
    """Where the log of one worker lies."""
    return root / job_uid / f"{slot}-{incarnation}.log"


def _logs(folder: Path) -> dict[int, list[tuple[int, Path]]]:
    logs: dict[int, list[tuple[int, Path]]] = {}
    for path in folder.glob("*.log*"):
        match = _NAME.fullmatch(path.name.partition(".log")[0] + ".log")
        if match:
            entry = (int(match[2]), folder / match[0])
            slot_logs = logs.setdefault(int(match[1]), [])
            if entry not in slot_logs:
                slot_logs.append(entry)
    return logs


def _read(path: Path) -> Iterator[str]:
    for number in range(MAX_OLD_FILES, -1, -1):
        try:
            with _part(path, number).open(encoding="utf-8", errors="replace", newline="\n") as file:
                for line in file:
                    yield line.rstrip("\n")
        except FileNotFoundError:
            continue


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
