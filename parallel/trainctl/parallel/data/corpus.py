"""Files behind a URI, in a fixed order: what a source of training data consists of.

Files come through fsspec: a folder (walked; hidden entries and ``__pycache__`` left out), a file, a glob (anything with
a ``*``), a URL, or ``python-stdlib``, which is the running Python's standard library without site-packages.
"""

from __future__ import annotations

import os
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import DataSourceSpec, TrainDataSpec
from trainctl.core.units import format_count
from trainctl.parallel.data.filesystem import filesystem_of
from trainctl.parallel.data.formats.port import CorpusFile
from trainctl.parallel.data.not_opened import not_opened
from trainctl.parallel.plan.data_names import STDLIB, is_archive, is_sidecar, is_walked

_INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
_VERSION_FIELDS = ("mtime", "ETag", "etag", "LastModified", "last_modified", "updated", "created")
_DATA_PATH = "spec.train.data"
_Entries = dict[str, Mapping[str, Any]]
"""What fsspec says of the entries of a folder, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Files sorted by path, at least one.

    Attributes:
        source: what the user wrote.
        path: of the source in the job file.
        filesystem: fsspec's; reads the paths of ``files``.
        files: sorted by path.
        hold_out_every: every n-th file is held out, or record where there are fewer files; 0 holds out nothing.
    """

    source: DataSourceSpec
    path: str
    filesystem: Any
    files: tuple[CorpusFile, ...]
    hold_out_every: int

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.source.uri

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.name or self.source.uri

    @property
    def size_bytes(self) -> int:
        """Stored size of all files."""
        return sum(file.size_bytes for file in self.files)


def sources_of(data: TrainDataSpec) -> dict[str, DataSourceSpec]:
    """The sources by their paths in the job file; data without a mixture is one source."""
    if not data.sources:
        source = DataSourceSpec(uri=data.uri, format=data.format, field=data.field, include=data.include)
        return {_DATA_PATH: source}
    return {f"{_DATA_PATH}.sources[{number}]": source for number, source in enumerate(data.sources)}


def names_of(data: TrainDataSpec) -> str:
    """The sources, for messages."""
    return ", ".join(source.name or source.uri for source in sources_of(data).values())


def open_corpus(source: DataSourceSpec, *, hold_out_every: int, path: str = _DATA_PATH) -> Corpus:
    """Lists the files of a source without reading them; ``path`` is its place in the job file.

    Raises:
        DataError: nothing is there, nothing matches, or it cannot be listed; says what was found.
    """
    uri = sysconfig.get_path("stdlib") if source.uri == STDLIB else source.uri
    try:
        filesystem, root = filesystem_of(uri)
        files = [file for file in _list(filesystem, root, source, path) if not is_sidecar(file.path)]
    except DataError:
        raise
    except Exception as error:  # each of fsspec's backends has classes of its own
        raise not_opened(error, wanted=f"{_kind(source)} files at {source.uri}", path=f"{path}.uri") from error
    if packed := [file.path for file in files if is_archive(file.path)]:
        raise DataError(
            f"expected plain files or .gz at {source.uri}, found {packed[0]} ({len(packed)} of {len(files)} files are "
            "compressed or packed in a way that is not read)",
            hint=f"unpack them, compress them with gzip, or leave them out with {path}.include",
        )
    files.sort(key=lambda file: file.path)
    return Corpus(source=source, path=path, filesystem=filesystem, files=tuple(files), hold_out_every=hold_out_every)


def _kind(source: DataSourceSpec) -> str:
    return "text" if source.format == "auto" else source.format


def _list(filesystem: Any, root: str, source: DataSourceSpec, spec_path: str) -> list[CorpusFile]:
    if "*" in root:
        infos = filesystem.glob(root, detail=True)
        files = [_file(path, info) for path, info in infos.items() if info["type"] == "file"]
        if not files:
            raise FileNotFoundError(root)
        return files
    info = filesystem.info(root)
    return [_file(root, info)] if info["type"] == "file" else _walk(filesystem, root, source, spec_path)


def _walk(filesystem: Any, root: str, source: DataSourceSpec, spec_path: str) -> list[CorpusFile]:
    """Files of a folder whose names match; a folder that matches nothing is an error that counts what is there."""
    stdlib = source.uri == STDLIB
    patterns = ("*.py", source.include) if stdlib else (source.include,)
    skipped: frozenset[str] = _INSTALLED_FOLDERS if stdlib else frozenset()
    matching: list[CorpusFile] = []
    seen = 0
    for folders, files in _folders(filesystem, root):
        for name in [name for name in folders if name in skipped or not is_walked(name)]:
            del folders[name]
        # A pipe or a socket would be waited for, and holds no text.
        files = {name: info for name, info in files.items() if info["type"] != "other" or info.get("islink")}
        seen += len(files)
        names = [name for name in files if not name.startswith(".") and all(fnmatch(name, p) for p in patterns)]
        matching += [_file(files[name]["name"], files[name]) for name in names]
    if not matching:
        raise DataError(
            f"expected files that match {source.include!r} in {source.uri}, found "
            f"{format_count(seen, 'file')} of which none matches",
            hint=f"change {spec_path}.include or {spec_path}.uri",
        )
    return matching


def _folders(filesystem: Any, root: str) -> Iterator[tuple[_Entries, _Entries]]:
    """Subfolders and files of every folder below ``root``; a link to a folder is entered, each real folder once."""
    real, entered = _real_place(filesystem), set[str]()
    roots = deque([root])
    while roots:
        walk: Iterable[tuple[str, _Entries, _Entries]] = filesystem.walk(roots.popleft(), detail=True, on_error="raise")
        for here, folders, files in walk:
            if (place := real(here)) in entered:
                folders.clear()  # a walk does not enter what is deleted here
                continue
            entered.add(place)
            links = sorted(n for n, info in files.items() if info.get("islink") and filesystem.isdir(info["name"]))
            roots += [files.pop(name)["name"] for name in links]
            yield folders, files


def _real_place(filesystem: Any) -> Callable[[str], str]:
    """What tells of a path where it really leads; only this machine's folders can be asked."""
    return os.path.realpath if isinstance(filesystem, LocalFileSystem) else str


def _file(path: str, info: Mapping[str, Any]) -> CorpusFile:
    version = next((str(info[field]) for field in _VERSION_FIELDS if info.get(field)), "")
    return CorpusFile(path=path, size_bytes=info.get("size") or 0, version=version)
