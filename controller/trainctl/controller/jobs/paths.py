"""Which URIs are paths of this machine."""

from __future__ import annotations


def local_path(uri: str) -> str | None:
    """The path of a local URI; None for one that lies elsewhere."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return None if "://" in uri or "::" in uri else uri
