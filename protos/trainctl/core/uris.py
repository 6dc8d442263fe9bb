"""URIs of folders as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

SCHEMES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "http", "https", "sftp", "webhdfs", "oss")
_MISSPELT = re.compile(rf"({'|'.join((*SCHEMES, 'file'))})(:/?(?![/:])|//)(?P<rest>.+)", re.IGNORECASE)

_SAME: Mapping[str, str] = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
_ADDRESS = re.compile(r"//\[[0-9A-Fa-f:.]*\]")
_LOCAL = "local://"
"""fsspec's other word for this machine."""
_HOST = re.compile(r"file://(?!localhost/)(?P<rest>[^/].*)", re.IGNORECASE)
"""Behind two slashes stands a machine, which nobody would ask: the folder of that name would be left out."""


_NO_BUCKET = re.compile(r"(s3a?|gcs|gs|abfss?|az|oss)://(/.*)?", re.IGNORECASE)


def uri_problem(uri: str) -> str:
    """What is wrong with the spelling of a URI: it would pass for a path, or names no bucket; empty if nothing is."""
    if host := _HOST.fullmatch(uri):
        return f"expected a path, or a URL such as file:///{host['rest']}, found {uri!r}"
    if bucket := _NO_BUCKET.fullmatch(uri):
        return f"expected the name of a bucket behind {bucket[1]}://, found {uri!r}"
    found = _MISSPELT.fullmatch(uri)
    if found is None:
        return ""
    scheme = found[1].lower()
    meant = f"{scheme}://{'/' if scheme == 'file' else ''}{found['rest'].lstrip('/')}"
    return f"expected a path, or a URL such as {meant}, found {uri!r}"


def uri_hint(uri: str) -> str:
    """What to do about the problem of a URI that has one."""
    if _HOST.fullmatch(uri):
        return "a URL of this machine has three slashes behind file:, since it names no host"
    if bucket := _NO_BUCKET.fullmatch(uri):
        return f"name the bucket: {bucket[1]}://BUCKET/FOLDER"
    return "a URL has :// behind its scheme"


def local_path(uri: str) -> str | None:
    """The path that a URI of this machine is opened at, however it is spelled; None for one that lies elsewhere."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    if uri.startswith(_LOCAL):
        return uri.removeprefix(_LOCAL)
    return None if "://" in uri else uri


def one_spelling(uri: str) -> str:
    """A URL of elsewhere with the one of several words for its kind of store that all spellings share."""
    scheme, found, rest = uri.partition("://")
    return f"{_SAME.get(scheme.lower(), scheme.lower())}{found}{rest}" if found else uri


def is_chained(uri: str) -> bool:
    """Whether fsspec would open one URL by way of another, such as ``simplecache::file:///x``."""
    return "://" in uri and "::" in _ADDRESS.sub("//", uri)
