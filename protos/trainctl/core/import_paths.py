"""``module:name``, the spelling of something of the user's own."""

from __future__ import annotations

import re

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_import_path(text: str) -> bool:
    """Whether it reads like ``package.module:Name``; it need not exist."""
    return _IMPORT_PATH.fullmatch(text) is not None
