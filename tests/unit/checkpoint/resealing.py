"""Checkpoints whose root manifest is written anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trainctl.checkpoint.manifest.codec import dump_root, sha256
from trainctl.checkpoint.manifest.names import CONTENTS, ROOT_MANIFEST
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.records.generation import CheckpointRef


def resealed(ref: CheckpointRef, change: Callable[[RootManifest], RootManifest]) -> CheckpointRef:
    """The same attempt with another root manifest."""
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)
    data = dump_root(change(root))
    storage.delete(ROOT_MANIFEST)
    storage.write_file(ROOT_MANIFEST, [data])
    return dataclasses.replace(ref, manifest_sha256=sha256(data))


def without_table(ref: CheckpointRef) -> CheckpointRef:
    """As an older version has written it."""
    found = resealed(ref, lambda root: dataclasses.replace(root, contents=None))
    open_storage(ref.uri).delete(CONTENTS)
    return found
