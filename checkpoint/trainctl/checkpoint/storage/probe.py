"""``python -m trainctl.checkpoint.storage.probe URI``: can this folder be listed from here? Prints a JSON object."""

from __future__ import annotations

import json
import sys

from trainctl.checkpoint.storage.opening import open_storage


def probe(uri: str) -> dict[str, str]:
    """Nothing, or why not under ``error``."""
    try:
        open_storage(uri).list("")
    except Exception as error:  # whatever a driver of fsspec raises
        return {"error": f"{type(error).__name__}: {error}".split("\n", 1)[0]}
    return {}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
