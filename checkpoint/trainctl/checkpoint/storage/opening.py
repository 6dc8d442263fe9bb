"""From a URI to the storage behind it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import Storage
from trainctl.checkpoint.storage.remote import FsspecStorage
from trainctl.core.errors import UnavailableError


def open_storage(uri: str) -> Storage:
    """The storage of a folder: a path or ``file://`` URI takes the local fast path, any other scheme fsspec.

    Nothing is read or made yet. fsspec is only imported where a URI needs it.

    Raises:
        UnavailableError: fsspec, or its driver for this scheme, is not installed.
    """
    if "://" not in uri:
        return LocalStorage(Path(uri).expanduser())
    if uri.startswith("file://"):
        return LocalStorage(Path(unquote(urlsplit(uri).path)))
    try:
        import fsspec  # type: ignore[import-untyped]

        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UnavailableError(
            f"{uri}: expected a folder that fsspec can open, found: {error}",
            hint="install fsspec and the package of this scheme (s3fs for s3://, gcsfs for gs://)",
        ) from error
    return FsspecStorage(uri, filesystem, root)
