"""Token ids made earlier: a file of little-endian unsigned integers, with a small JSON file beside it.

``shard.bin`` is nothing but the ids, uint16 or uint32. ``shard.bin.json`` says what they are::

    {"format": "trainctl-tokens", "version": 1, "dtype": "uint16", "vocabSize": 50257, "count": 1000000,
     "separator": 50256}

``separator`` is optional: the id that ends every document. Without the JSON file the ids are taken for what nanoGPT's
``prepare.py`` writes, if only one of the two types gives ids of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from trainctl.core.errors import DataError
from trainctl.core.json_text import NoJsonError, parse_json
from trainctl.core.plain import is_mapping
from trainctl.core.system.files import write_atomically
from trainctl.parallel.data.formats.port import CorpusFile, Record
from trainctl.parallel.data.formats.text import read_fully

FORMAT_NAME = "trainctl-tokens"
SIDECAR_SUFFIX = ".json"
_TYPES: Mapping[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_SIDECAR_BYTES = 1 << 20
"""No more is read: what is cut off there is no JSON."""
_PIECE_TOKENS = 1 << 19
_PROBED_TOKENS = 1 << 16
_MIN_PROBED_TOKENS = 1 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What is known of a file of ids.

    Attributes:
        dtype: of the ids.
        count: how many there should be; None where only the file's size tells.
        separator: ends every document; None: the file is one document.
    """

    dtype: np.dtype[Any]
    count: int | None
    separator: int | None


class TokensFormat:
    """Positions are tokens.

    Args:
        vocab_size: ids must be less.
    """

    name = "tokens"

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def group_bytes(self, path: str) -> int:
        """See ``Format``."""
        return 2 * _PIECE_TOKENS

    def held_out_from(self, filesystem: Any, file: CorpusFile, *, every: int) -> int | None:
        """See ``Format``; with a separator a file is many records."""
        shard = self._open(filesystem, file)
        if shard.separator is not None:
            return None
        count = filesystem.size(file.path) // shard.dtype.itemsize
        return int(count - count // every)

    def read(
        self, filesystem: Any, file: CorpusFile, *, start: int = 0, number: int = 0, cut: int | None = None
    ) -> Iterator[Record]:
        """See ``Format``; a document that does not fit into half a million tokens comes in pieces of one number."""
        shard = self._open(filesystem, file)
        at, begins, width = start, start == 0 or shard.separator is not None, shard.dtype.itemsize
        with filesystem.open(file.path, "rb") as stream:
            stream.seek(start * width)
            while True:
                wanted = min(_PIECE_TOKENS, cut - at) if cut is not None and at < cut else _PIECE_TOKENS
                data = read_fully(stream, wanted * width)
                ids = np.frombuffer(data[: len(data) // width * width], dtype=shard.dtype)
                for piece, ends in _documents(ids, shard.separator):
                    content, reason = self._check(piece)
                    yield Record(
                        start=at,
                        stop=at + len(piece),
                        number=number,
                        content=content,
                        begins=begins,
                        where=f"token {at}, byte {at * width}",
                        reason=reason,
                    )
                    begins = ends or (cut is not None and at < cut <= at + len(piece))
                    at, number = at + len(piece), number + ends
                if len(data) < wanted * width:
                    break
        if len(data) % width or (shard.count is not None and at < shard.count):
            expected = "whole tokens" if shard.count is None else f"{shard.count} tokens"
            where, reason = f"token {at}, byte {at * width}", f"expected {expected}, the file ends early"
            yield Record(start=at, stop=at, number=number, content=None, where=where, reason=reason)

    def _check(self, ids: NDArray[np.generic]) -> tuple[NDArray[np.generic] | None, str]:
        largest = int(ids.max())
        if largest < self._vocab_size:
            return ids, ""
        return None, f"token {largest} is outside of the vocabulary of {self._vocab_size}"

    def _open(self, filesystem: Any, file: CorpusFile) -> Shard:
        sidecar = file.path + SIDECAR_SUFFIX
        if filesystem.exists(sidecar):
            return self._read_sidecar(sidecar, filesystem.cat_file(sidecar, 0, _SIDECAR_BYTES))
        with filesystem.open(file.path, "rb") as stream:
            return Shard(dtype=self._probe(read_fully(stream, 4 * _PROBED_TOKENS), file), count=None, separator=None)

    def _read_sidecar(self, path: str, data: bytes) -> Shard:
        problem = _sidecar_problem(data, self._vocab_size)
        if problem:
            raise DataError(
                f"expected the description of a token shard in {path}, found: {problem}",
                hint="docs/howto/data.md describes it; write_shard() of trainctl.parallel.data.formats.tokens makes it",
            )
        told = json.loads(data)
        return Shard(dtype=_TYPES[told["dtype"]], count=told["count"], separator=told.get("separator"))

    def _probe(self, data: bytes, file: CorpusFile) -> np.dtype[Any]:
        """The only type that gives ids of the vocabulary, and not just because every second half is 0."""
        fits: list[np.dtype[Any]] = []
        for dtype in _TYPES.values():
            ids = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype=dtype)
            if len(ids) and file.size_bytes % dtype.itemsize == 0 and int(ids.max()) < self._vocab_size:
                fits.append(dtype)
        if len(fits) == 2 and len(data) >= 4 * _MIN_PROBED_TOKENS:
            return _TYPES["uint32"]  # uint16 ids of which every second one is 0, over thousands, are uint32 ids
        if len(fits) != 1:
            raise DataError(
                f"expected token ids below {self._vocab_size} in {file.path}, found that "
                + ("both uint16 and uint32 fit" if fits else "neither uint16 nor uint32 fits"),
                hint=f"write {file.path}{SIDECAR_SUFFIX} with dtype, vocabSize and count, or check the tokenizer",
            )
        return fits[0]


def write_shard(path: Path, ids: NDArray[np.generic], *, vocab_size: int, separator: int | None = None) -> None:
    """Writes ids, shape (tokens,), and the JSON file beside them."""
    name = "uint16" if vocab_size <= 1 << 16 else "uint32"
    told: dict[str, object] = {"format": FORMAT_NAME, "version": 1, "dtype": name, "vocabSize": vocab_size}
    told |= {"count": len(ids)} | ({} if separator is None else {"separator": separator})
    write_atomically(path, ids.astype(_TYPES[name]).tobytes())
    write_atomically(path.with_name(path.name + SIDECAR_SUFFIX), json.dumps(told).encode())


def _documents(ids: NDArray[np.generic], separator: int | None) -> Iterator[tuple[NDArray[np.generic], bool]]:
    """Documents with their separators, and whether each ends here."""
    if not len(ids):
        return
    if separator is None:
        yield ids, False
        return
    begin = 0
    for end in (np.flatnonzero(ids == separator) + 1).tolist():
        yield ids[begin:end], True
        begin = end
    if begin < len(ids):
        yield ids[begin:], False


def _sidecar_problem(data: bytes, vocab_size: int) -> str:
    """What is wrong with the JSON beside a shard; empty if nothing is."""
    try:
        told = parse_json(data)
    except NoJsonError as error:
        return f"no JSON: {error}"
    if not is_mapping(told) or told.get("format") != FORMAT_NAME or told.get("version") != 1:
        return f'expected "format": "{FORMAT_NAME}" and "version": 1'
    if told.get("dtype") not in tuple(_TYPES):
        return f'expected "dtype" {" or ".join(_TYPES)}, found {json.dumps(told.get("dtype"))}'
    size, count, separator = told.get("vocabSize"), told.get("count"), told.get("separator")
    if not _is_number(size):
        return f'expected a whole number in "vocabSize", found {json.dumps(size)}'
    if not _is_number(count):
        return f'expected a whole number in "count", found {json.dumps(count)}'
    if size > vocab_size:
        return f'"vocabSize" {size}, but the tokenizer has {vocab_size} entries'
    if separator is not None and not (_is_number(separator) and separator < size):
        return f'expected an id of the vocabulary in "separator", found {json.dumps(separator)}'
    return ""


def _is_number(value: object) -> TypeGuard[int]:
    """Of tokens, or of one: JSON's true and false are none."""
    return type(value) is int and value >= 0
