"""A folder on this machine: positioned vectored reads and writes, fsync of files and folders, no copies."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from trainctl.checkpoint.monitor import SYNC
from trainctl.checkpoint.stopwatch import timed
from trainctl.checkpoint.storage.descriptors import write_all, write_ranges, write_stream
from trainctl.checkpoint.storage.port import RangeRead, RangeWrite, other_size, short_read
from trainctl.core.errors import DamagedCheckpointError
from trainctl.core.system.files import make_folder, sync_folder

_READERS = 4
_APPEND_LIMIT_BYTES = 64 * 1024 * 1024


class LocalStorage:
    """Implements ``Storage`` on a local (or locally mounted) folder; it need not exist before the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    def write_file(self, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        """Writes to the final name, then syncs file and folder."""
        target = self._root / path
        make_folder(target.parent)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            size = write_stream(descriptor, buffers)
            with timed(SYNC):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with timed(SYNC):
            sync_folder(target.parent)
        return size

    @property
    def ranged_writes(self) -> bool:
        """Yes."""
        return True

    def write_ranges(self, path: str, ranges: Iterable[RangeWrite]) -> None:
        """Positioned writes, then a sync of file and folder."""
        target = self._root / path
        make_folder(target.parent)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            write_ranges(descriptor, ranges)
            with timed(SYNC):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with timed(SYNC):
            sync_folder(target.parent)

    def create_file(self, path: str, data: bytes) -> None:
        """Writes a temporary file and links it to its name, which fails where the name is taken."""
        target = self._root / path
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            self.write_file(str(temporary.relative_to(self._root)), [data])
            _link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    @property
    def creates_atomically(self) -> bool:
        """By a link."""
        return True

    @property
    def requests_at_once(self) -> int:
        """A few cores keep a disk, or the memory, busy."""
        return min(_READERS, os.cpu_count() or 1)

    @property
    def gives_up(self) -> bool:
        """A call of the kernel may take for ever, as on a network mount whose server is gone."""
        return False

    @property
    def append_limit_bytes(self) -> int:
        """Growing costs nothing; the bound is for those who open the file."""
        return _APPEND_LIMIT_BYTES

    def append(self, path: str, data: bytes, *, at: int) -> None:
        """Writes behind the end; what a full disk took of it is taken back."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            found = os.fstat(descriptor).st_size
            if found != at:
                raise other_size(f"{self.uri}/{path}", expected=at, found=found)
            try:
                write_all(descriptor, [data], at)
            except OSError:
                os.ftruncate(descriptor, at)
                raise
        finally:
            os.close(descriptor)

    def read(self, path: str, *, whole: Callable[[bytes], bool] | None = None) -> bytes:
        """Reads it whole."""
        return (self._root / path).read_bytes()

    def read_ranges(self, path: str, ranges: Sequence[RangeRead]) -> None:
        """Reads straight into the buffers."""
        descriptor = os.open(self._root / path, os.O_RDONLY)
        try:
            for read in ranges:
                done = 0
                while done < len(read.into):
                    count = os.preadv(descriptor, [read.into[done:]], read.offset + done)
                    if count == 0:
                        raise DamagedCheckpointError(short_read(f"{self.uri}/{path}", read, done))
                    done += count
        finally:
            os.close(descriptor)

    def size(self, path: str) -> int | None:
        """Size by stat."""
        try:
            found = os.stat(f"{self._root}/{path}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def list(self, path: str) -> tuple[str, ...]:
        """Names by scandir."""
        try:
            return tuple(sorted(entry.name for entry in os.scandir(self._root / path)))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def sizes(self, path: str) -> Mapping[str, int]:
        """By scandir and stat."""
        try:
            with os.scandir(self._root / path) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def delete(self, path: str) -> None:
        """Removes and syncs the parent, so that it stays removed. Of a link only the link itself goes.

        Raises:
            PermissionError: a link on the way leads out of the folder: what lies there is not ours to remove.
        """
        target = self._root / path
        if not target.parent.resolve().is_relative_to(self._root.resolve()):
            raise PermissionError(errno.EPERM, "a link leads out of the folder; remove it by hand", str(target))
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
        except FileNotFoundError:
            return
        sync_folder(target.parent)

    def delete_if_empty(self, path: str) -> None:
        """By rmdir, which refuses where it would lose something."""
        with contextlib.suppress(OSError):
            (self._root / path).rmdir()


def _link(temporary: Path, target: Path) -> None:
    """Raises: FileExistsError: the name is taken. OSError: another file system has no such thing."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            text = "this file system has no hard links, which it takes to create a file in one act"
            raise OSError(errno.ENOSYS, text, str(target)) from error
        raise
