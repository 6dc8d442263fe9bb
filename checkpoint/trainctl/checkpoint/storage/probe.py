"""``python -m trainctl.checkpoint.storage.probe URI``: can this folder be used from here? Prints a JSON object.

Listing alone does not tell whether a checkpoint can be saved: with ``--write`` a small file is made, read and removed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.patience import Patience
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import StorageRefusedError, TrainctlError

QUICK = Patience(deadline_s=6.0, answer_s=6.0)
"""Somebody waits for the answer."""
PREFIX = ".trainctl-probe-"
_CONTENT = b"may be removed\n"
_NOT_ATOMIC = (
    "no conditional put: of two that seal the same checkpoint at one moment both would succeed; trainctl looks first"
)
_NOT_LISTED = "its listing lags behind what was written: `resumeFrom: latest` may miss the newest checkpoint"


def reach(uri: str) -> None:
    """Sees within seconds whether anybody is there: what begins does not wait for that as long as what goes on.

    Raises:
        StorageAwayError: nobody is. Whatever else is wrong is for those to tell who read there.
    """
    storage = open_storage(uri, calls=Calls(QUICK))
    with storage_errors(f"looking for {uri}"):
        try:
            storage.size(PREFIX)  # any name: only whether there is an answer
        except OSError as error:
            if error.errno == errno.EHOSTUNREACH:
                raise


def try_out(storage: Storage, *, write: bool) -> tuple[str, ...]:
    """Lists a folder; with ``write`` also makes a file there, reads, lists and removes it.

    Returns:
        What works, but not as well as it could.

    Raises:
        StorageRefusedError: it is full, or gives other bytes back; a bucket, a right or credentials are missing.
        StorageAwayError: it cannot be reached.
    """
    with storage_errors(f"listing {storage.uri}"):
        storage.list("")
    if not write:
        return ()
    name = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        with storage_errors(f"writing to {storage.uri}"):
            storage.create_file(name, _CONTENT)
        notes = _looked_at(storage, name)
    except TrainctlError:
        with contextlib.suppress(OSError, TrainctlError):  # it may be there, although nobody heard so
            storage.delete(name)
        raise
    with storage_errors(f"removing what was written to {storage.uri}"):
        storage.delete(name)
    return notes


def _looked_at(storage: Storage, name: str) -> tuple[str, ...]:
    """Reads the file in two ways, sees that nobody could make it again, and looks for it in the listing."""
    with storage_errors(f"reading what was written to {storage.uri}"):
        part = bytearray(4)
        storage.read_ranges(name, [RangeRead(4, memoryview(part))])
        if storage.read(name) != _CONTENT or bytes(part) != _CONTENT[4:8]:
            raise StorageRefusedError(
                f"reading what was written to {storage.uri} gave other bytes back",
                hint="see whether something between this machine and the storage keeps or changes what passes",
            )
    notes: list[str] = []
    with storage_errors(f"writing to {storage.uri}"):
        try:
            storage.create_file(name, _CONTENT)
            atomic = False
        except FileExistsError:
            atomic = storage.creates_atomically
    if not atomic:
        notes.append(_NOT_ATOMIC)
    with storage_errors(f"listing {storage.uri}"):
        if name not in storage.list(""):
            notes.append(_NOT_LISTED)
    return tuple(notes)


def probe(uri: str, *, write: bool = False) -> dict[str, str]:
    """Nothing, or why not under ``error``, and what to do under ``hint``."""
    found = _tried(lambda: open_storage(uri, calls=Calls(QUICK)), write=write)
    return {name: text for name, text in found.items() if name != "notes"}


def examine(uri: str) -> dict[str, Any]:
    """The same with a write, of a local folder in the nearest one that is there already: nothing is left behind.

    Returns:
        ``error``, ``hint`` and ``code`` as ``probe``; ``notes``: what works, but not as well as it could; ``tookS``:
        seconds; ``freeBytes``: where somebody can tell.
    """
    begun_s = time.monotonic()
    found: dict[str, Any] = dict(_tried(lambda: _existing(uri), write=True))
    found["tookS"] = round(time.monotonic() - begun_s, 3)
    with contextlib.suppress(OSError, TrainctlError):
        storage = _existing(uri)
        if isinstance(storage, LocalStorage):
            found["freeBytes"] = shutil.disk_usage(storage.uri).free
    return found


def _existing(uri: str) -> Storage:
    storage = open_storage(uri, calls=Calls(QUICK))
    if not isinstance(storage, LocalStorage):
        return storage
    path = Path(storage.uri)
    folder = next(each for each in (path, *path.parents) if each.exists())
    if not folder.is_dir():
        with storage_errors(f"opening {storage.uri}"):
            raise OSError(errno.ENOTDIR, "not a folder", str(folder))
    return LocalStorage(folder)


def _tried(opened: Callable[[], Storage], *, write: bool) -> Mapping[str, Any]:
    try:
        notes = try_out(opened(), write=write)
    except TrainctlError as error:
        return {"error": str(error).split("\n", 1)[0], "hint": error.hint, "code": error.code}
    except Exception as error:  # whatever a driver of fsspec raises
        return {"error": f"{type(error).__name__}: {error}".split("\n", 1)[0]}
    return {"notes": list(notes)} if notes else {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    print(json.dumps(examine(options.uri) if options.write else probe(options.uri)))
