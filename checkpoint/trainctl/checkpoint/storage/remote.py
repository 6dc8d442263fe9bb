"""Anything that fsspec opens: object stores, HDFS, memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from trainctl.checkpoint.storage.port import RangeRead, other_size, short_read
from trainctl.core.errors import DamagedCheckpointError

_READERS = 8
_APPEND_LIMIT_BYTES = 4 * 1024 * 1024


class FsspecStorage:
    """Implements ``Storage`` with one ``fsspec.AbstractFileSystem``.

    A rename is not atomic on object stores, so nothing is ever renamed: a whole file is one conditional put.
    """

    def __init__(self, uri: str, filesystem: Any, root: str) -> None:
        self._uri = uri.rstrip("/")
        self._fs = filesystem
        self._root = root.rstrip("/")

    @property
    def uri(self) -> str:
        """The folder's URI, as it was opened."""
        return self._uri

    def write_file(self, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        """Streams the buffers (a multi-part upload where the store has it), then checks the size that arrived."""
        target = f"{self._root}/{path}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        written = 0
        with self._fs.open(target, "wb") as file:
            for buffer in buffers:
                file.write(buffer)
                written += memoryview(buffer).nbytes
        found = self._fs.size(target)
        if found != written:
            raise OSError(f"{self._uri}/{path}: expected {written} bytes after the upload, found {found}")
        return written

    def create_file(self, path: str, data: bytes) -> None:
        """One conditional put (``If-None-Match`` on S3)."""
        target = f"{self._root}/{path}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(target, data, mode="create")

    @property
    def requests_at_once(self) -> int:
        """One stream of an object store is slow, many are not."""
        return _READERS

    @property
    def append_limit_bytes(self) -> int:
        """Small: an object store writes the whole object anew."""
        return _APPEND_LIMIT_BYTES

    def append(self, path: str, data: bytes, *, at: int) -> None:
        """Puts the whole object anew: few stores can append, and a put is atomic on all."""
        target = f"{self._root}/{path}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            before = bytes(self._fs.cat_file(target))
        except FileNotFoundError:
            before = b""
        if len(before) != at:
            raise other_size(f"{self._uri}/{path}", expected=at, found=len(before))
        self._fs.pipe_file(target, before + data)

    def read(self, path: str) -> bytes:
        """Reads it whole."""
        return bytes(self._fs.cat_file(f"{self._root}/{path}"))

    def read_ranges(self, path: str, ranges: Sequence[RangeRead]) -> None:
        """Reads all ranges at once, in parallel where the file system can; those that touch are one request."""
        requests = _touching(ranges)
        starts = [request[0].offset for request in requests]
        ends = [request[-1].offset + len(request[-1].into) for request in requests]
        parts = self._fs.cat_ranges([f"{self._root}/{path}"] * len(starts), starts, ends, on_error="raise")
        for start, request, part in zip(starts, requests, parts, strict=True):
            for read in request:
                found = memoryview(part)[read.offset - start :][: len(read.into)]
                if len(found) != len(read.into):
                    raise DamagedCheckpointError(short_read(f"{self._uri}/{path}", read, len(found)))
                read.into[:] = found

    def size(self, path: str) -> int | None:
        """Size by the store's metadata."""
        try:
            info = self._fs.info(f"{self._root}/{path}")
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def list(self, path: str) -> tuple[str, ...]:
        """Names by a fresh listing."""
        folder = f"{self._root}/{path}".rstrip("/")
        self._fs.invalidate_cache(folder)
        try:
            names = self._fs.ls(folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(sorted(name.rstrip("/").rpartition("/")[2] for name in names if name.rstrip("/") != folder))

    def delete(self, path: str) -> None:
        """Removes recursively."""
        try:
            self._fs.rm(f"{self._root}/{path}", recursive=True)
        except FileNotFoundError:
            return

    def delete_if_empty(self, path: str) -> None:
        """By rmdir; object stores have no folders, so there is nothing to do on them."""
        with contextlib.suppress(OSError, NotImplementedError):
            self._fs.rmdir(f"{self._root}/{path}")


def _touching(ranges: Sequence[RangeRead]) -> list[list[RangeRead]]:
    """Ranges that follow each other without a gap, in the order they have in the file."""
    requests: list[list[RangeRead]] = []
    for read in sorted(ranges, key=lambda read: read.offset):
        if requests and requests[-1][-1].offset + len(requests[-1][-1].into) == read.offset:
            requests[-1].append(read)
        else:
            requests.append([read])
    return requests
