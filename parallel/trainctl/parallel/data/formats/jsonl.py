"""JSON lines: one object a line, one of whose fields is the text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from trainctl.parallel.data.formats.port import CorpusFile, Record, open_unpacked
from trainctl.parallel.data.formats.text import DAMAGE, group_bytes_of_stream

MAX_LINE_BYTES = 64 << 20
_SKIP_BYTES = 1 << 20
_SHOWN_FIELDS = 5


class JsonlFormat:
    """A line is a record; empty lines are none. Positions are bytes of the unpacked content.

    Args:
        field: holds the text.
    """

    name = "jsonl"

    def __init__(self, field: str) -> None:
        self._field = field

    def group_bytes(self, path: str) -> int:
        """See ``Format``."""
        return group_bytes_of_stream(path)

    def held_out_from(self, filesystem: Any, file: CorpusFile, *, every: int) -> int | None:
        """See ``Format``."""
        return None

    def read(
        self, filesystem: Any, file: CorpusFile, *, start: int = 0, number: int = 0, cut: int | None = None
    ) -> Iterator[Record]:
        """See ``Format``; ``number`` counts lines, also empty ones."""
        at = start
        with open_unpacked(filesystem, file.path) as stream:
            try:
                if start:
                    stream.seek(start)
                while line := stream.readline(MAX_LINE_BYTES):
                    stop = at + len(line)
                    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                        stop += _skip_line(stream)
                    if not line.isspace():
                        yield self._record(line, start=at, stop=stop, number=number)
                    at, number = stop, number + 1
            except DAMAGE as error:
                reason = f"{type(error).__name__}: {error}"
                yield Record(start=at, stop=at, number=number, content=None, where=_where(number, at), reason=reason)

    def _record(self, line: bytes, *, start: int, stop: int, number: int) -> Record:
        content: str | None
        if stop - start > MAX_LINE_BYTES:
            content, reason = None, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB"
        else:
            content, reason = self._text(line)
        where = _where(number, start)
        return Record(start=start, stop=stop, number=number, content=content, where=where, reason=reason)

    def _text(self, line: bytes) -> tuple[str | None, str]:
        """The text of a line, or why there is none."""
        try:
            value: object = json.loads(line.rstrip(b"\r\n").decode("utf-8", errors="replace"))
        except json.JSONDecodeError as error:
            return None, f"no JSON: {error.msg} (character {error.pos})"
        except (ValueError, RecursionError) as error:
            return None, f"no JSON: {error}"
        if not isinstance(value, dict):
            return None, f"expected a JSON object, found {type(value).__name__}"
        fields = cast("dict[str, object]", value)
        if self._field not in fields:
            names = ", ".join(map(repr, list(fields)[:_SHOWN_FIELDS])) or "none"
            return None, f"no field {self._field!r} (fields: {names})"
        text = fields[self._field]
        if not isinstance(text, str):
            return None, f"expected text in field {self._field!r}, found {type(text).__name__}"
        return without_surrogates(text), ""


def without_surrogates(text: str) -> str:
    r"""Replaces halves of surrogate pairs, which JSON can spell (``"\ud800"``) and UTF-8 cannot."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _skip_line(stream: BinaryIO) -> int:
    """Bytes up to the end of the line, which are dropped."""
    skipped = 0
    while part := stream.readline(_SKIP_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _where(number: int, at: int) -> str:
    return f"line {number + 1}, byte {at}"
