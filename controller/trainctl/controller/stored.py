"""Values in the store that cannot be read: one clear error that names the key, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from trainctl.controller.store.port import StoreCorruptError
from trainctl.core.errors import TrainctlError

_UNREADABLE = (TrainctlError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


@contextmanager
def reading(key: str) -> Generator[None, None, None]:
    """Around the reading of the value of ``key``.

    Raises:
        StoreCorruptError: it cannot be read.
    """
    try:
        yield
    except _UNREADABLE as error:
        why = str(error) if isinstance(error, TrainctlError) else f"{type(error).__name__}: {error}"
        raise StoreCorruptError(
            f"the value of {key} in the state store cannot be read: {why[:500]}",
            hint="restore the store from a backup; nothing was changed",
        ) from error
