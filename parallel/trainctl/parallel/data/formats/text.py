"""Text files: a file is a document, in UTF-8; what is no UTF-8 becomes replacement characters."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from typing import Any, BinaryIO

from trainctl.parallel.data.formats.port import CorpusFile, Record, is_packed, open_unpacked

PIECE_BYTES = 1 << 20
PLAIN_GROUP_BYTES = 256 << 10
PACKED_GROUP_BYTES = 8 << 20
DAMAGE = (EOFError, zlib.error, BadGzipFile)
"""What reading a damaged packed file raises."""


def group_bytes_of_stream(path: str) -> int:
    """Larger groups for packed files, which are unpacked from their beginning for each."""
    return PACKED_GROUP_BYTES if is_packed(path) else PLAIN_GROUP_BYTES


class TextFormat:
    """Reads pieces of about a megabyte that end with a line, or in a longer line with a character.

    Positions are bytes of the unpacked content.
    """

    name = "text"

    def group_bytes(self, path: str) -> int:
        """See ``Format``."""
        return group_bytes_of_stream(path)

    def held_out_from(self, filesystem: Any, file: CorpusFile, *, every: int) -> int | None:
        """See ``Format``; a packed file has to be unpacked for it."""
        if file.size_bytes and not is_packed(file.path):
            length = file.size_bytes
        else:
            length = sum(record.stop - record.start for record in self.read(filesystem, file))
        return length - length // every

    def read(
        self, filesystem: Any, file: CorpusFile, *, start: int = 0, number: int = 0, cut: int | None = None
    ) -> Iterator[Record]:
        """See ``Format``."""
        at, begins = start, start == 0
        with open_unpacked(filesystem, file.path) as stream:
            try:
                if start:
                    stream.seek(start)
                for data in _pieces(stream, start, cut):
                    text = data.decode("utf-8", errors="replace")
                    yield Record(start=at, stop=at + len(data), number=number, content=text, begins=begins)
                    begins = cut is not None and at < cut <= at + len(data)
                    at, number = at + len(data), number + 1
            except DAMAGE as error:
                where, reason = f"byte {at} of the unpacked text", f"{type(error).__name__}: {error}"
                yield Record(start=at, stop=at, number=number, content=None, where=where, reason=reason)


def read_fully(stream: BinaryIO, size_bytes: int) -> bytes:
    """``size_bytes`` bytes, less only at the end: how much a single read gives depends on the storage."""
    parts: list[bytes] = []
    while size_bytes > 0 and (part := stream.read(size_bytes)):
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)


def _pieces(stream: BinaryIO, at: int, cut: int | None) -> Iterator[bytes]:
    """The rest of a stream in pieces, one of which ends at ``cut`` or at most three bytes behind it."""
    rest = b""
    while True:
        before_cut = cut is not None and at + len(rest) < cut
        wanted = min(PIECE_BYTES, cut - at - len(rest)) if before_cut and cut is not None else PIECE_BYTES
        chunk = read_fully(stream, wanted)
        data = rest + chunk
        if before_cut and at + len(data) == cut:
            data, rest = _to_character(data, stream)
        elif len(chunk) == wanted:
            data, rest = _to_line(data)
        else:
            rest = b""
        if data:
            yield data
        at += len(data)
        if not chunk and not rest:
            return


def _to_character(data: bytes, stream: BinaryIO) -> tuple[bytes, bytes]:
    """``data`` and as many following bytes as belong to its last character; then what was read too much."""
    if data[-1] < 0x80:
        return data, b""
    following = read_fully(stream, 3)
    count = next((i for i, byte in enumerate(following) if byte & 0xC0 != 0x80), len(following))
    return data + following[:count], following[count:]


def _to_line(data: bytes) -> tuple[bytes, bytes]:
    """Cuts behind the last whole line, or where there is none, before the last character, which may be incomplete."""
    split = data.rfind(b"\n") + 1
    if not split:
        split = len(data) - 1
        while split > max(0, len(data) - 4) and data[split] & 0xC0 == 0x80:
            split -= 1
    return data[:split], data[split:]
