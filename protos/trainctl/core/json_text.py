"""JSON that comes from a file or another process: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainctl.core.plain import is_dict
from trainctl.core.system.given_files import read_given
from trainctl.core.units import format_bytes

MOST_BYTES = 16 << 20
"""Of a file that is read whole: far more than anything that is written here, and no burden."""


class NoJsonError(ValueError):
    """It is not the JSON that was expected."""


def parse_json(text: bytes | str) -> object:
    """The value that a text spells.

    Raises:
        NoJsonError: it spells none, or one that is nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoJsonError(str(error)) from error


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The object that a text spells.

    Raises:
        NoJsonError: it spells none, says what it is instead.
    """
    try:
        found = parse_json(text)
    except NoJsonError as error:
        raise NoJsonError(f"expected a JSON object, found: {error}") from error
    if not is_dict(found):
        raise NoJsonError(f"expected a JSON object, found {type(found).__name__}")
    return found


def read_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a file, of which never more than ``most_bytes`` and one are read.

    Raises:
        NoJsonError: there is none in it, or the file is larger.
        OSError: it cannot be read, or is no regular file.
    """
    data = read_given(path, most_bytes + 1)
    if len(data) > most_bytes:
        raise NoJsonError(f"expected a JSON object, found more than {format_bytes(most_bytes)}")
    return parse_object(data)
