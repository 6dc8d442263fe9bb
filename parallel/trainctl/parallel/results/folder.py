"""A local folder for libraries that only write to one, whatever storage the records lie on."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage

_EVERY_S = 30.0
_PIECE_BYTES = 1 << 20


class RecordsFolder:
    """The folder ``name`` of the records: itself where they are local, else a copy that is sent up now and then.

    Args:
        records: folder or URI of the records.
        name: folder in it.
    """

    def __init__(self, records: str, name: str) -> None:
        self._storage = open_storage(records)
        self._name = name
        self._sent: dict[Path, tuple[int, int]] = {}
        self._due_s = 0.0
        self._remote = not isinstance(self._storage, LocalStorage)
        if self._remote:
            self._root = Path(tempfile.mkdtemp(prefix="trainctl-records-"))
        else:
            self._root = Path(self._storage.uri)
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """Where to write."""
        return self._root / self._name

    def publish(self, *, last: bool = False) -> None:
        """Sends up the files that changed, every half minute and at the last call, which also removes the copy.

        Raises:
            OSError: the storage refuses; the next call tries again.
        """
        if not self._remote or (time.monotonic() < self._due_s and not last):
            return
        self._due_s = time.monotonic() + _EVERY_S
        for file in sorted(self.path.rglob("*")):
            if not file.is_file() or file.is_symlink():
                continue
            found = file.stat()
            state = (found.st_size, found.st_mtime_ns)
            if self._sent.get(file) != state:
                self._storage.write_file(file.relative_to(self._root).as_posix(), _pieces(file))
                self._sent[file] = state
        if last:
            shutil.rmtree(self._root, ignore_errors=True)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            yield piece
