"""Page tokens: where the next page begins. Opaque to callers, checked when they come back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from trainctl.core.errors import UsageError

T = TypeVar("T")
DEFAULT_SIZE = 100
MAX_SIZE = 1000


def page(items: Sequence[T], key: Callable[[T], tuple[float, str]], *, size: int, token: str) -> tuple[list[T], str]:
    """One page of ``items``, which are sorted by ``key``, and the token of the next one (empty: no more).

    Jobs that come or go between two pages shift nobody else.

    Raises:
        UsageError: the size is negative or the token is not one of ours.
    """
    if size < 0:
        raise UsageError(f"page_size: expected 0 (default) to {MAX_SIZE}, found {size}")
    size = min(size or DEFAULT_SIZE, MAX_SIZE)
    after = _read(token) if token else None
    left = [item for item in items if after is None or key(item) > after]
    chosen = left[:size]
    return chosen, _write(key(chosen[-1])) if len(left) > size else ""


def _write(key: tuple[float, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _read(token: str) -> tuple[float, str]:
    try:
        time_s, uid = json.loads(base64.urlsafe_b64decode(token.encode()))
        return float(time_s), str(uid)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError("page_token: not one that this service gave out", hint="start again without one") from error
