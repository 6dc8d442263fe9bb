"""Lists of small numbers as people write them: ``0,2-3``."""

from __future__ import annotations

import re

from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted

_PART = re.compile(r"(\d+)(?:-(\d+))?")
MAX_NUMBER = 99_999


def parse_numbers(flag: str, text: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0,2-3``, sorted, each once.

    Raises:
        UsageError: it is not such a list; names the part that is wrong.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise _error(flag, f"expected numbers and ranges, found {quoted(part.strip())} in {quoted(text)}")
        digits = [end for end in match.groups() if end is not None]
        if any(len(end.lstrip("0")) > len(str(MAX_NUMBER)) for end in digits):
            raise _error(flag, f"expected numbers from 0 to {MAX_NUMBER}, found {quoted(part.strip())}")
        first, last = int(digits[0]), int(digits[-1])
        if first > last:
            raise _error(flag, f"expected a range from small to large, found {quoted(part.strip())}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def _error(flag: str, message: str) -> UsageError:
    return UsageError(f"{flag}: {message}", hint=f"for example {flag} 0,2-3")
