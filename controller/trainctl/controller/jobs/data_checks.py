"""What a look at the disk tells of a job's data and tokenizer, where they are on this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from trainctl.core.errors import Problem
from trainctl.core.json_text import NoJsonError, read_object
from trainctl.core.records.train_spec import DataSourceSpec, TokenizerSpec, TrainSpec
from trainctl.core.uris import local_path
from trainctl.parallel.plan.data_names import STDLIB, is_sidecar, is_walked
from trainctl.parallel.plan.data_rules import DATA, TOKENIZER

_TOKENIZER_FILE = "tokenizer.json"
_MAX_TOKENIZER_BYTES = 256 << 20


def data_problems(train: TrainSpec) -> list[Problem]:
    """Sources and tokenizer that are not there or cannot be read."""
    data = train.data
    single = DataSourceSpec(uri=data.uri, include=data.include)
    sources = {f"{DATA}.sources[{number}]": source for number, source in enumerate(data.sources)} or {DATA: single}
    found = [
        Problem(path=f"{path}.{field}", message=message)
        for path, source in sources.items()
        for field, message in _source(source)
    ]
    return found + [Problem(path=f"{TOKENIZER}.path", message=message) for message in _tokenizer(train.tokenizer)]


def _source(source: DataSourceSpec) -> Iterator[tuple[str, str]]:
    path = local_path(source.uri)
    if source.uri == STDLIB or path is None:
        return
    if problem := _not_readable(path, source.uri):
        if not glob.has_magic(path) or not os.path.isabs(path) or os.path.exists(path):
            yield "uri", problem
        elif next(glob.iglob(path, recursive=True), None) is None:
            yield "uri", f"no file matches {path}"
    elif os.path.isdir(path) and not _has_file(path, source.include):
        yield "include", f"no file in {path} matches {source.include!r}"


def _has_file(folder: str, include: str) -> bool:
    """Whether a worker would find one: it enters links to folders, each real folder once, and no hidden entry."""
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in entered:
            folders.clear()  # a walk does not enter what is deleted here
            continue
        entered.add(real)
        if any(fnmatch(name, include) and not name.startswith(".") and not is_sidecar(name) for name in names):
            return True
        folders[:] = filter(is_walked, folders)
    return False


def _tokenizer(tokenizer: TokenizerSpec) -> Iterator[str]:
    path = local_path(tokenizer.path)
    if tokenizer.kind != "file" or path is None:
        return
    if problem := _not_readable(path, tokenizer.path):
        yield problem
        return
    file = os.path.join(path, _TOKENIZER_FILE) if os.path.isdir(path) else path
    try:
        content = read_object(Path(file), _MAX_TOKENIZER_BYTES)
    except FileNotFoundError:
        yield f"there is no {_TOKENIZER_FILE} in {path}"
    except (OSError, NoJsonError) as error:
        yield f"{file} is not the JSON of a tokenizer: {error}"
    else:
        if "model" not in content:
            yield f'{file} is not the JSON of a tokenizer: it has no "model"'


def _not_readable(path: str, uri: str) -> str:
    """Why a local path cannot be used; empty if it can."""
    if not os.path.isabs(path):
        return f"expected an absolute path or a URL, found {uri!r}"
    if not os.path.exists(path):
        return f"{path} does not exist on the controller's machine"
    return "" if os.access(path, os.R_OK) else f"{path} cannot be read by this user"
