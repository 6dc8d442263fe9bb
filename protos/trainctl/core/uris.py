"""URIs of folders as people write them."""

from __future__ import annotations

import re

SCHEMES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "http", "https", "sftp", "webhdfs", "oss")
_MISSPELT = re.compile(rf"({'|'.join((*SCHEMES, 'file'))})(:/?(?![/:])|//)(?P<rest>.+)", re.IGNORECASE)

_HOST = re.compile(r"file://(?!localhost/)(?P<rest>[^/].*)", re.IGNORECASE)
"""Behind two slashes stands a machine, which nobody would ask: the folder of that name would be left out."""


def uri_problem(uri: str) -> str:
    """What is wrong with the spelling of a URI that would pass for a path, such as ``s3//bucket``; empty if none."""
    if host := _HOST.fullmatch(uri):
        return f"expected a path, or a URL such as file:///{host['rest']}, found {uri!r}"
    found = _MISSPELT.fullmatch(uri)
    if found is None:
        return ""
    scheme = found[1].lower()
    meant = f"{scheme}://{'/' if scheme == 'file' else ''}{found['rest'].lstrip('/')}"
    return f"expected a path, or a URL such as {meant}, found {uri!r}"
