"""Anything that fsspec opens: object stores, HDFS, memory. Whatever goes wrong there is bounded in time, and said."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.failures import StorageSaysNoError
from trainctl.checkpoint.storage.port import RangeRead, RangeWrite, other_size, short_read
from trainctl.checkpoint.storage.upload import upload_parts, upload_stream
from trainctl.core.errors import CheckpointError, DamagedCheckpointError

_LOG = logging.getLogger("trainctl.checkpoint")
_READERS = 8
_APPEND_LIMIT_BYTES = 4 * 1024 * 1024
_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"})
"""Object stores: making a folder there would at most make a bucket, of a name that was mistyped."""
_WRITER = "trainctl-writer"
T = TypeVar("T")


class FsspecStorage:
    """Implements ``Storage`` with one ``fsspec.AbstractFileSystem``.

    A rename is not atomic on object stores, so nothing is ever renamed: a whole file is one conditional put. What the
    storage refuses is tried again where that may help; an answer that was cut off is none.

    Args:
        uri: the folder.
        filesystem: that it is on.
        root: its path there.
        calls: how to call it.
    """

    def __init__(self, uri: str, filesystem: Any, root: str, calls: Calls | None = None) -> None:
        self._uri = uri.rstrip("/")
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._calls = (calls or Calls()).to(_endpoint(filesystem))
        protocol = filesystem.protocol
        self._creates_atomically = True
        self._is_s3 = hasattr(filesystem, "call_s3")
        # Newer versions of s3fs ask for the size first, to read large files in parts.
        parted = self._is_s3 and "max_concurrency" in inspect.signature(filesystem._cat_file).parameters
        self._in_one: Mapping[str, int] = {"max_concurrency": 1} if parted else {}
        self._has_folders = _WITHOUT_FOLDERS.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    @property
    def uri(self) -> str:
        """The folder's URI, as it was opened."""
        return self._uri

    def write_file(self, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        """Streams the buffers (a multi-part upload where the store has it), then checks the size that arrived."""
        target = self._prepared(path)
        upload = upload_parts if self._is_s3 else upload_stream
        written = upload(self._fs, target, f"writing {self._uri}/{path}", buffers, self._calls)
        found = self.size(path)
        if found != written:
            text = f"{self._uri}/{path}: expected {written} bytes after the upload, found {found}"
            raise StorageSaysNoError(errno.EIO, text, again=True, hint="see whether somebody else writes there")
        return written

    @property
    def ranged_writes(self) -> bool:
        """No: fsspec's files are written from begin to end."""
        return False

    def write_ranges(self, path: str, ranges: Iterable[RangeWrite]) -> None:
        """Refuses."""
        raise CheckpointError(
            f"{self._uri}/{path}: expected a storage that can write into the middle of a file, found {self._uri}",
            hint="save there with layout: chunked; `trainctl checkpoints export` makes a Hugging Face folder of it",
        )

    def create_file(self, path: str, data: bytes) -> None:
        """One conditional put (``If-None-Match`` on S3).

        Where the store has none, a look and a put: of two that create a file at the same moment both succeed.
        """
        target = self._prepared(path)
        token = uuid.uuid4().hex
        kept = {"Metadata": {_WRITER: token}} if self._is_s3 else {}

        def create(again: bool) -> None:
            self._fs.pipe_file(target, data, mode="create", **kept)

        what = f"creating {self._uri}/{path}"
        try:
            self._calls.call(what, create, size_bytes=len(data))
        except FileExistsError:
            # A put whose answer was lost is sent again, by us or by the HTTP client itself: then what is there is ours.
            if not self._is_s3 or self._writer_of(what, target) != token:
                raise
        except StorageSaysNoError as failure:
            if failure.errno != errno.ENOSYS:
                raise
            self._creates_atomically = False
            _LOG.warning(
                "%s: this storage has no conditional put: before a file is created, it is looked whether it is there",
                what,
            )
            self._create_if_absent(path, target, data)

    @property
    def creates_atomically(self) -> bool:
        """Until the store refuses a conditional put."""
        return self._creates_atomically

    @property
    def requests_at_once(self) -> int:
        """One stream of an object store is slow, many are not."""
        return _READERS

    @property
    def gives_up(self) -> bool:
        """Every call has a limit."""
        return True

    @property
    def append_limit_bytes(self) -> int:
        """Small: an object store writes the whole object anew."""
        return _APPEND_LIMIT_BYTES

    def append(self, path: str, data: bytes, *, at: int) -> None:
        """Puts the whole object anew: few stores can append, and a put is atomic on all."""
        target = self._prepared(path)
        before = self._content(path) or b""
        if len(before) != at:
            raise other_size(f"{self._uri}/{path}", expected=at, found=len(before))
        whole = before + data
        what = f"adding to {self._uri}/{path}"
        self._calls.call(what, lambda _: self._fs.pipe_file(target, whole), size_bytes=len(whole))

    def read(self, path: str, *, whole: Callable[[bytes], bool] | None = None) -> bytes:
        """Reads it whole; what is shorter than the file is asked for again."""
        found = self._content(path, whole)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", f"{self._uri}/{path}")
        return found

    def read_ranges(self, path: str, ranges: Sequence[RangeRead]) -> None:
        """Reads all ranges at once, in parallel where the file system can; those that touch are one request."""
        requests = _touching(ranges)
        starts = [request[0].offset for request in requests]
        ends = [request[-1].offset + len(request[-1].into) for request in requests]
        paths = [f"{self._root}/{path}"] * len(starts)

        def fetch(again: bool) -> Sequence[bytes]:
            parts: Sequence[bytes] = self._fs.cat_ranges(paths, starts, ends, on_error="raise")
            wanted = [end - start for start, end in zip(starts, ends, strict=True)]
            if any(len(part) != size for part, size in zip(parts, wanted, strict=True)):
                self._refuse_cut_off(path, needed=max(ends))
            return parts

        what = f"reading {self._uri}/{path}"
        try:
            parts = self._calls.call(what, fetch, size_bytes=sum(ends) - sum(starts))
        except StorageSaysNoError as failure:
            size = self.size(path)
            late = next((read for read in ranges if size is not None and read.offset + len(read.into) > size), None)
            if size is None or late is None:
                raise
            # A range behind the end is refused by some stores, with an error that does not say so.
            found = max(0, size - late.offset)
            raise DamagedCheckpointError(short_read(f"{self._uri}/{path}", late, found)) from failure
        for start, request, part in zip(starts, requests, parts, strict=True):
            for read in request:
                bytes_ = memoryview(part)[read.offset - start :][: len(read.into)]
                if len(bytes_) != len(read.into):
                    raise DamagedCheckpointError(short_read(f"{self._uri}/{path}", read, len(bytes_)))
                read.into[:] = bytes_

    def size(self, path: str) -> int | None:
        """Size by the store's metadata."""
        try:
            info = self._ask(f"looking at {self._uri}/{path}", lambda: self._fs.info(f"{self._root}/{path}"))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def list(self, path: str) -> tuple[str, ...]:
        """Names by a fresh listing."""
        return tuple(sorted(self._entries(path)))

    def sizes(self, path: str) -> Mapping[str, int]:
        """By a fresh listing, which is one request for a thousand files."""
        found = self._entries(path)
        files = {name: one["size"] for name, one in found.items() if one["type"] == "file"}
        return {name: int(size) for name, size in files.items() if size is not None}

    def _entries(self, path: str) -> Mapping[str, Mapping[str, Any]]:
        """What is in a folder, by name."""
        folder = f"{self._root}/{path}".rstrip("/")

        def entries() -> Sequence[Mapping[str, Any]]:
            self._fs.invalidate_cache(folder)
            found: Sequence[Mapping[str, Any]] = self._fs.ls(folder, detail=True)
            return found

        try:
            found = self._ask(f"listing {self._uri}/{path}".rstrip("/"), entries)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = ((one["name"].rstrip("/"), one) for one in found)
        return {name.rpartition("/")[2]: one for name, one in named if name != folder}

    def delete(self, path: str) -> None:
        """Removes recursively."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(f"removing {self._uri}/{path}", lambda: self._fs.rm(f"{self._root}/{path}", recursive=True))

    def delete_if_empty(self, path: str) -> None:
        """By rmdir; object stores have no folders, so there is nothing to do on them."""
        if self._has_folders:
            with contextlib.suppress(OSError, NotImplementedError):
                self._calls.once(f"removing {self._uri}/{path}", lambda: self._fs.rmdir(f"{self._root}/{path}"))

    def _ask(self, what: str, action: Callable[[], T]) -> T:
        return self._calls.call(what, lambda _: action())

    def _prepared(self, path: str) -> str:
        """The path on the file system, with its folder made where there are folders."""
        target = f"{self._root}/{path}"
        if self._has_folders:
            folder = target.rpartition("/")[0]
            self._ask(f"making a folder for {self._uri}/{path}", lambda: self._fs.makedirs(folder, exist_ok=True))
        return target

    def _content(self, path: str, whole: Callable[[bytes], bool] | None = None) -> bytes | None:
        """All of a file; None if there is none."""

        def fetch(again: bool) -> bytes:
            found = bytes(self._fs.cat_file(f"{self._root}/{path}", **self._in_one))
            if whole is None or not whole(found):
                self._refuse_cut_off(path, needed=len(found) + 1)
            return found

        try:
            return self._calls.call(f"reading {self._uri}/{path}", fetch)
        except FileNotFoundError:
            return None

    def _refuse_cut_off(self, path: str, *, needed: int) -> None:
        """Raises: StorageSaysNoError: the file has at least ``needed`` bytes, so an answer with fewer was cut off."""
        size = int(self._fs.info(f"{self._root}/{path}")["size"])
        if size >= needed:
            text = f"{self._uri}/{path}: the answer was cut off, the file has {size} bytes"
            raise StorageSaysNoError(
                errno.EIO, text, again=True, hint="see whether the network to the storage has trouble"
            )

    def _writer_of(self, what: str, target: str) -> str:
        """Which call of ``create_file`` made an object of an S3 store."""
        bucket, key, _ = self._fs.split_path(target)
        head = self._ask(what, lambda: self._fs.call_s3("head_object", Bucket=bucket, Key=key))
        return str(head.get("Metadata", {}).get(_WRITER, ""))

    def _create_if_absent(self, path: str, target: str, data: bytes) -> None:
        if self.size(path) is not None:
            raise FileExistsError(errno.EEXIST, "there is one already", f"{self._uri}/{path}")
        self._calls.call(
            f"creating {self._uri}/{path}", lambda _: self._fs.pipe_file(target, data), size_bytes=len(data)
        )


def _endpoint(filesystem: Any) -> str:
    """The address of a store of one's own; empty where it is the cloud's, or no object store."""
    if not hasattr(filesystem, "call_s3"):
        return ""
    told = filesystem.endpoint_url or (filesystem.client_kwargs or dict[str, Any]()).get("endpoint_url")
    return str(told or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")


def _touching(ranges: Sequence[RangeRead]) -> list[list[RangeRead]]:
    """Ranges that follow each other without a gap, in the order they have in the file."""
    requests: list[list[RangeRead]] = []
    for read in sorted(ranges, key=lambda read: read.offset):
        if requests and requests[-1][-1].offset + len(requests[-1][-1].into) == read.offset:
            requests[-1].append(read)
        else:
            requests.append([read])
    return requests
