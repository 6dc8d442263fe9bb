"""Text files behind a URI, in a fixed order, split into training and held-out text.

Files come through fsspec: a folder (walked; hidden entries and ``__pycache__`` left out), a file, a glob (anything with
a ``*``), a URL, or ``python-stdlib``, which is the running Python's standard library without site-packages.
"""

from __future__ import annotations

import gzip
import os
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any

import fsspec  # type: ignore[import-untyped]

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import TrainDataSpec

STDLIB = "python-stdlib"
_BUILD_FOLDERS = frozenset({"__pycache__"})
_INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
_VERSION_FIELDS = ("mtime", "ETag", "etag", "LastModified", "last_modified", "updated", "created")


class Split(StrEnum):
    """Which part of the corpus a text belongs to."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """One file of a corpus.

    Attributes:
        path: as the file system knows it.
        size_bytes: as stored (compressed, if it is); 0 when the storage does not tell.
        version: whatever the storage says about changes: modification time, ETag; empty when it says nothing.
    """

    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Files sorted by path, at least one.

    Attributes:
        uri: what the user wrote.
        filesystem: fsspec's; reads the paths of ``files``.
        files: sorted by path.
        hold_out_every: every n-th file is held out; 0 holds out nothing.
    """

    uri: str
    filesystem: Any
    files: tuple[TextFile, ...]
    hold_out_every: int

    @property
    def size_bytes(self) -> int:
        """Stored size of all files."""
        return sum(file.size_bytes for file in self.files)

    def texts(self, *, on_read: Callable[[int], None] | None = None) -> Iterator[tuple[Split, str]]:
        """All texts in order, each with its split, decoded as UTF-8 with replacement of what is not.

        The n-th, 2n-th, ... file is held out. A corpus of fewer than n files gives the last n-th of each file instead.

        Args:
            on_read: called with the stored size of each file that was read.

        Raises:
            DataError: a file cannot be read; names it.
        """
        every, by_file = self.hold_out_every, len(self.files) >= self.hold_out_every
        for position, file in enumerate(self.files, start=1):
            text = self._read(file)
            if on_read is not None:
                on_read(file.size_bytes)
            if not every:
                yield Split.TRAIN, text
            elif by_file:
                yield Split.TRAIN if position % every else Split.HELD_OUT, text
            else:
                cut = len(text) - len(text) // every
                yield Split.TRAIN, text[:cut]
                yield Split.HELD_OUT, text[cut:]

    def _read(self, file: TextFile) -> str:
        try:
            data: bytes = self.filesystem.cat_file(file.path)
            return (gzip.decompress(data) if file.path.endswith(".gz") else data).decode("utf-8", errors="replace")
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise DataError(
                f"expected a readable text file at {file.path} (corpus {self.uri}), found: {_describe(error)}",
                hint="repair, remove or exclude the file (spec.train.data.include), then submit again",
            ) from error


def open_corpus(spec: TrainDataSpec) -> Corpus:
    """Lists the corpus without reading its files.

    Raises:
        DataError: nothing is there, nothing matches, or it cannot be listed; says what was found.
    """
    uri = sysconfig.get_path("stdlib") if spec.uri == STDLIB else spec.uri
    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
        files = _list(filesystem, root, spec)
    except FileNotFoundError as error:
        raise DataError(
            f"expected text files at {spec.uri}, found nothing there",
            hint="spec.train.data.uri takes a folder, file, glob, URL or python-stdlib, seen from the worker's node",
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"expected text files at {spec.uri}, found: {_describe(error)}",
            hint="check the URI, its permissions, and that fsspec's package for this protocol is installed",
        ) from error
    files.sort(key=lambda file: file.path)
    return Corpus(uri=spec.uri, filesystem=filesystem, files=tuple(files), hold_out_every=spec.hold_out_every)


def _list(filesystem: Any, root: str, spec: TrainDataSpec) -> list[TextFile]:
    if "*" in root:
        infos = filesystem.glob(root, detail=True)
        files = [_text_file(path, info) for path, info in infos.items() if info["type"] == "file"]
        if not files:
            raise FileNotFoundError(root)
        return files
    info = filesystem.info(root)
    return [_text_file(root, info)] if info["type"] == "file" else _walk(filesystem, root, spec)


def _walk(filesystem: Any, root: str, spec: TrainDataSpec) -> list[TextFile]:
    """Files of a folder whose names match; a folder that matches nothing is an error that counts what is there."""
    stdlib = spec.uri == STDLIB
    patterns = ("*.py", spec.include) if stdlib else (spec.include,)
    skipped = _BUILD_FOLDERS | _INSTALLED_FOLDERS if stdlib else _BUILD_FOLDERS
    matching, seen = [], 0
    for folders, files in _folders(filesystem, root):
        for name in [name for name in folders if name in skipped or name.startswith(".")]:
            del folders[name]  # a walk does not enter what is deleted here
        seen += len(files)
        names = [name for name in files if not name.startswith(".") and all(fnmatch(name, p) for p in patterns)]
        matching += [_text_file(files[name]["name"], files[name]) for name in names]
    if not matching:
        raise DataError(
            f"expected files that match {spec.include!r} in {spec.uri}, found {seen} files of which none matches",
            hint="change spec.train.data.include or spec.train.data.uri",
        )
    return matching


def _folders(filesystem: Any, root: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Subfolders and files of every folder below ``root``; a link to a folder is entered, each real folder once."""
    roots, entered = [root], {os.path.realpath(root)}
    while roots:
        for _, folders, files in filesystem.walk(roots.pop(), detail=True, on_error="raise"):
            links = sorted(n for n, info in files.items() if info.get("islink") and filesystem.isdir(info["name"]))
            for name in links:
                link = files.pop(name)["name"]
                if (real := os.path.realpath(link)) not in entered:
                    entered.add(real)
                    roots.append(link)
            yield folders, files


def _text_file(path: str, info: Mapping[str, Any]) -> TextFile:
    version = next((str(info[field]) for field in _VERSION_FIELDS if info.get(field)), "")
    return TextFile(path=path, size_bytes=info.get("size") or 0, version=version)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
