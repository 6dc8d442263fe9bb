"""Writing one object: in parts where the store takes them one by one, so that only what failed is sent again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from trainctl.checkpoint.storage.calls import Calls

PART_BYTES = 16 << 20
_CALL_BYTES = 1 << 20
"""Written with one call, or more."""
_AT_ONCE = 4
"""Parts on their way; they and one more are held in memory."""


def upload_parts(filesystem: Any, path: str, where: str, buffers: Iterable[memoryview | bytes], calls: Calls) -> int:
    """Writes an object of an S3 store, as s3fs speaks to it; returns its size in bytes.

    What fits one part is one put. More is a multi-part upload: nothing is there before all parts are. What was begun
    and not completed is taken back: all of it, if a part fails for good, and a begin whose answer was lost.

    Raises:
        StorageSaysNoError: as ``Calls.call``.
    """
    bucket, key, _ = filesystem.split_path(path)
    place = {"Bucket": bucket, "Key": key}
    parts = _parts(buffers)
    first = next(parts, b"")
    second = next(parts, None)
    if second is None:
        calls.call(where, lambda _: filesystem.call_s3("put_object", **place, Body=first), size_bytes=len(first))
        return len(first)
    started = calls.call(where, lambda _: filesystem.call_s3("create_multipart_upload", **place))
    place["UploadId"] = started["UploadId"]
    try:
        return _send(filesystem, where, place, _all(first, second, parts), calls)
    except BaseException:
        with contextlib.suppress(Exception):
            calls.once(where, lambda: filesystem.call_s3("abort_multipart_upload", **place))
        raise
    finally:
        with contextlib.suppress(Exception):  # what is left only costs room, until the bucket's own rules remove it
            _take_back(filesystem, where, bucket, key, calls)


def _take_back(filesystem: Any, where: str, bucket: str, key: str, calls: Calls) -> None:
    """Ends the uploads of an object that are still open: it is one writer's own.

    One may be open besides ours: HTTP clients, too, send a begin again whose answer was lost.
    """
    listed = calls.once(where, lambda: filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key))
    for upload in listed.get("Uploads", ()):
        if upload["Key"] == key:
            left = {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}
            calls.once(where, partial(filesystem.call_s3, "abort_multipart_upload", **left))


def _send(filesystem: Any, where: str, place: dict[str, str], parts: Iterator[bytes], calls: Calls) -> int:
    def send(number: int, body: bytes) -> str:
        what = f"{where}, part {number}"
        sent = calls.call(
            what,
            lambda _: filesystem.call_s3("upload_part", **place, PartNumber=number, Body=body),
            size_bytes=len(body),
        )
        return str(sent["ETag"])

    size = 0
    tags: list[str] = []
    on_the_way: deque[Future[str]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, "checkpoint-upload") as pool:
        try:
            for number, body in enumerate(parts, start=1):
                while len(on_the_way) >= _AT_ONCE:
                    tags.append(on_the_way.popleft().result())
                on_the_way.append(pool.submit(send, number, body))
                size += len(body)
            tags += [one.result() for one in on_the_way]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    listed = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, start=1)]}

    def complete(again: bool) -> None:
        try:
            filesystem.call_s3("complete_multipart_upload", **place, MultipartUpload=listed)
        except FileNotFoundError:
            if not again:  # else the try before may have completed it unheard: the size will tell
                raise

    calls.call(where, complete)
    return size


def upload_stream(filesystem: Any, path: str, where: str, buffers: Iterable[memoryview | bytes], calls: Calls) -> int:
    """Writes a file of any other file system; returns its size in bytes. Nothing is tried again: what was sent is gone.

    Raises:
        StorageSaysNoError: as ``Calls.once``; the file is dropped where the driver can do that.
    """
    size = 0
    file = calls.once(where, lambda: filesystem.open(path, "wb"))
    try:
        for buffer in _joined(buffers):
            count = memoryview(buffer).nbytes
            calls.once(where, partial(file.write, buffer), size_bytes=count)
            size += count
    except BaseException:
        with contextlib.suppress(Exception):
            file.discard()
        raise
    calls.once(where, file.close, size_bytes=size)
    return size


def _joined(buffers: Iterable[memoryview | bytes]) -> Iterator[memoryview | bytes]:
    """The same bytes; small buffers are joined, since every call has a thread, and a file thousands of tensors."""
    small: list[memoryview | bytes] = []
    size = 0
    for buffer in buffers:
        count = memoryview(buffer).nbytes
        if small and (count >= _CALL_BYTES or size + count > _CALL_BYTES):
            yield b"".join(small)
            small, size = [], 0
        if count >= _CALL_BYTES:
            yield buffer
        elif count:
            small.append(buffer)
            size += count
    if small:
        yield b"".join(small)


def _parts(buffers: Iterable[memoryview | bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of ``PART_BYTES``; the last may be shorter."""
    room = bytearray()
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while len(view):
            taken = view[: PART_BYTES - len(room)]
            room += taken
            view = view[len(taken) :]
            if len(room) == PART_BYTES:
                yield bytes(room)
                room.clear()
    if room:
        yield bytes(room)


def _all(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest
