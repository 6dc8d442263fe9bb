"""``python -m trainctl.checkpoint.storage.probe URI``: can this folder be used from here? Prints a JSON object.

Listing alone does not tell whether a checkpoint can be saved: with ``--write`` a small file is made, read and removed.
"""

from __future__ import annotations

import argparse
import json
import uuid

from trainctl.checkpoint.attempts import storage_errors
from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.patience import Patience
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import TrainctlError

QUICK = Patience(deadline_s=6.0, answer_s=6.0)
"""Somebody waits for the answer."""


def try_out(storage: Storage, *, write: bool) -> None:
    """Lists a folder; with ``write`` also makes a file there, reads and removes it.

    Raises:
        StorageRefusedError: it may not; a bucket or a right is missing, or credentials are.
        StorageAwayError: it cannot be reached.
    """
    with storage_errors(f"listing {storage.uri}"):
        storage.list("")
    if not write:
        return
    name = f".trainctl-probe-{uuid.uuid4().hex}"
    with storage_errors(f"writing to {storage.uri}"):
        storage.write_file(name, [b"may be removed\n"])
    with storage_errors(f"reading what was written to {storage.uri}"):
        storage.read(name)
    with storage_errors(f"removing what was written to {storage.uri}"):
        storage.delete(name)


def probe(uri: str, *, write: bool = False) -> dict[str, str]:
    """Nothing, or why not under ``error``, and what to do under ``hint``."""
    try:
        try_out(open_storage(uri, calls=Calls(QUICK)), write=write)
    except TrainctlError as error:
        return {"error": str(error).split("\n", 1)[0], "hint": error.hint, "code": error.code}
    except Exception as error:  # whatever a driver of fsspec raises
        return {"error": f"{type(error).__name__}: {error}".split("\n", 1)[0]}
    return {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    print(json.dumps(probe(options.uri, write=options.write)))
