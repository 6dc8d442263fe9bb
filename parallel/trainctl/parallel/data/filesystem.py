"""fsspec's file systems, by what is on them."""

from __future__ import annotations

from typing import Any

import fsspec  # type: ignore[import-untyped]


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The file system that a URI is about, and the path on it; what fsspec's backends raise passes through."""
    untyped: Any = fsspec
    found: tuple[Any, str] = untyped.core.url_to_fs(uri)
    return found
