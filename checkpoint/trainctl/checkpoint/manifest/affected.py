"""Which tensors a damaged file takes along, so that an error names more than a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from trainctl.checkpoint.manifest.codec import parse_contents, parse_part
from trainctl.checkpoint.manifest.records import PartManifest, RootManifest, StoredFile
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError

_NAMED = 3


def tensors_behind(part: PartManifest, path: str, left_bytes: int = 0) -> Iterator[str]:
    """Those that have bytes in a data file from ``left_bytes`` on: of a file that was cut off there, what it lost."""
    files = {index for index, file in enumerate(part.files) if file.path == path}
    for tensor in part.tensors:
        chunks = (chunk for chunk in tensor.chunks if chunk.file in files)
        if any(chunk.begin_bytes + chunk.size_bytes > left_bytes for chunk in chunks):
            yield f"{tensor.kind} of {tensor.fqn}"


def said(names: Iterable[str]) -> str:
    """``; tensors in it: exp_avg of head.weight, param of head.weight and 3 more``; empty without any."""
    known = list(dict.fromkeys(names))
    if not known:
        return ""
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"; tensors in it: {', '.join(known[:_NAMED])}{more}"


def tensors_in(storage: Storage, root: RootManifest, path: str, folder: str = "") -> str:
    """What is known of the tensors in a file of an attempt that is not as it was saved, as in ``said``.

    Of a data file its part manifest knows. Of a part manifest, and of a data file without it, the table of contents
    knows what its writer held. It adds to an error that is there: where nothing can be read, there is nothing to add.

    Args:
        storage: opened at the attempt, or above it.
        root: of the attempt.
        path: of the file, inside the attempt.
        folder: of the attempt.
    """
    for report in root.parts:
        if any(path == file.path for file in report.files):
            with contextlib.suppress(OSError, CheckpointError):
                part = parse_part(_bytes(storage, report.manifest, folder), report.manifest, where=path)
                return said(tensors_behind(part, path, storage.size(_within(folder, path)) or 0))
        elif path != report.manifest.path:
            continue
        with contextlib.suppress(OSError, CheckpointError):
            return said(_of_writer(storage, root, report.writer, folder))
    return ""


def _of_writer(storage: Storage, root: RootManifest, writer: int, folder: str) -> Iterator[str]:
    if root.contents is None:
        return
    contents = parse_contents(_bytes(storage, root.contents, folder), root.contents, where=root.contents.path)
    for alike in contents.tensors:
        if writer in contents.placed[alike.placed].writers:
            yield from (f"{kind} of {fqn}" for kind, fqn in zip(alike.kinds, alike.fqns, strict=True))


def _bytes(storage: Storage, file: StoredFile, folder: str) -> bytes:
    return storage.read(_within(folder, file.path))


def _within(folder: str, path: str) -> str:
    return f"{folder}/{path}".lstrip("/")
