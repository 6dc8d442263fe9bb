"""Why nothing is found in a folder: who mistyped a path wants to hear something else than who came too early."""

from __future__ import annotations

from pathlib import Path

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import Storage


def why_nothing(storage: Storage, folder: str = "") -> str:
    """Says it of a folder whose listing has nothing, as far as it can be told: object stores know no empty folders."""
    if not isinstance(storage, LocalStorage):
        return "the folder is empty, or there is no such folder"
    path = Path(f"{storage.uri}/{folder}")
    if path.is_dir():
        return "the folder is empty"
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return f"there is no such folder in {nearest}"


def is_folder(storage: Storage) -> bool:
    """Whether the folder itself is there already; elsewhere than on disks nobody makes folders."""
    return not isinstance(storage, LocalStorage) or Path(storage.uri).is_dir()


def is_file(storage: Storage) -> bool:
    """Whether a file has the folder's name; elsewhere than on disks there may be both."""
    return isinstance(storage, LocalStorage) and Path(storage.uri).is_file()
