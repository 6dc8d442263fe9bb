"""Lists of small numbers as people write them: ``0,2-3``."""

from __future__ import annotations

import re

from trainctl.core.errors import UsageError

_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse_numbers(flag: str, text: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0,2-3``, sorted, each once.

    Raises:
        UsageError: it is not such a list; names the part that is wrong.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"{flag}: expected numbers and ranges such as 0,2-3, found {part.strip()!r} in {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UsageError(f"{flag}: expected a range from small to large, found {part.strip()!r}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))
