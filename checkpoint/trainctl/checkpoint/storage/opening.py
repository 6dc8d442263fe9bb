"""From a URI to the storage behind it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, cast

from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import Storage
from trainctl.checkpoint.storage.remote import FsspecStorage
from trainctl.core.errors import StorageRefusedError
from trainctl.core.uris import SCHEMES, is_chained, local_path, uri_hint, uri_problem

_CONNECT_S = 10
_READ_S = 20


class _UrlToFs(Protocol):
    def __call__(self, url: str, **options: Any) -> tuple[Any, str]: ...


def open_storage(uri: str, *, calls: Calls | None = None) -> Storage:
    """The storage of a folder: a path or ``file://`` URI takes the local fast path, any other scheme fsspec.

    Nothing is read or made yet. fsspec is only imported where a URI needs it.

    Args:
        uri: of the folder.
        calls: how a storage that is not on this machine is called; None: as patiently as checkpoints need it.

    Raises:
        StorageRefusedError: fsspec, or its driver for this scheme, is not installed, or the URI is misspelt.
    """
    problem = uri_problem(uri)
    if problem:
        raise StorageRefusedError(f"{uri}: {problem}", hint=uri_hint(uri))
    if "://" not in uri:
        return LocalStorage(Path(uri).expanduser())
    if uri.startswith("file://"):
        return LocalStorage(Path(local_path(uri) or "/"))
    if is_chained(uri):
        raise StorageRefusedError(f"{uri}: expected one URL, found a chain of them", hint="name the folder itself")
    try:
        filesystem, root = _opened(uri)
    except (ImportError, ValueError, TypeError, OSError) as error:  # a scheme that needs more than a URL, for example
        found = str(error).split("\n", 1)[0]  # the driver of HDFS lists every place where it looked for Java
        raise StorageRefusedError(
            f"{uri}: expected a folder that fsspec can open, found: {found}", hint=_install(uri)
        ) from error
    if hasattr(filesystem, "call_s3"):
        filesystem.retries = 1  # what is tried again, and for how long, is decided in one place
    return FsspecStorage(uri, filesystem, root, calls)


def _opened(uri: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it."""
    import fsspec.config  # type: ignore[import-untyped]

    url_to_fs = cast("_UrlToFs", fsspec.core.url_to_fs)  # pyright: ignore[reportUnknownMemberType]  # not annotated
    return url_to_fs(uri, **_options(uri, fsspec.config.conf))


def _options(uri: str, conf: dict[str, Any]) -> dict[str, Any]:
    """A listing that is kept hides what others write; and S3's own time-outs come before ours."""
    options: dict[str, Any] = {"use_listings_cache": False}
    scheme = uri.partition("://")[0]
    if scheme in ("s3", "s3a"):
        own = conf.get(scheme, {}).get("config_kwargs", {})
        bounds = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = {**bounds, **own}
    return options


def _install(uri: str) -> str:
    scheme = uri.partition("://")[0].lower()
    near = get_close_matches(scheme, SCHEMES, n=1, cutoff=0.5)
    if scheme not in SCHEMES and near:
        return f"did you mean {near[0]}://?"
    if scheme == "hdfs":
        return "install pyarrow, Java and Hadoop, and set JAVA_HOME, HADOOP_HOME and CLASSPATH, here and on every node"
    return "install fsspec and the package of this scheme (s3fs for s3://, gcsfs for gs://), here and on every node"
