"""A folder that one worker of a node makes and all read: whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trainctl.core.errors import DataError
from trainctl.core.units import format_bytes
from trainctl.parallel.data.cache_lock import exclusive
from trainctl.parallel.data.corpus import Corpus

BUILD_DEADLINE_S = 1800.0
T = TypeVar("T")


def cached_folder(
    folder: Path,
    *,
    build: Callable[[Path], None],
    read: Callable[[Path], T | None],
    corpus: Corpus,
    advice: str,
    deadline_s: float,
) -> T:
    """What ``read`` finds in ``folder``; where that is None, one process fills the folder with ``build``.

    Args:
        folder: its name says what is in it.
        build: fills an empty folder.
        read: None for a folder that is missing or damaged.
        corpus: what it is made of, for messages.
        advice: how much room it takes, for messages.
        deadline_s: how long to wait for another process that builds.

    Raises:
        DataError: the folder cannot be written, or ``build`` raised it.
        UnavailableError: another worker was still building after ``deadline_s`` seconds; names it.
    """
    if (content := read(folder)) is not None:
        return content
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_suffix(".lock"), what=f"the tokens of {corpus.uri}", deadline_s=deadline_s):
            if (content := read(folder)) is None:
                _fill(folder, build)
                content = read(folder)
    except OSError as error:
        raise DataError(
            f"expected to write the tokens of {corpus.uri} ({format_bytes(corpus.size_bytes)}) under "
            f"{folder.parent.parent}, found: {error}",
            hint=f"{advice}; make room, or allow writing there",
        ) from error
    if content is None:
        raise DataError(
            f"expected the cache {folder} that was just written, found it incomplete",
            hint="see that nothing else deletes or writes files there, then submit again",
        )
    return content


def _fill(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes ``folder`` appear whole. The caller holds the lock."""
    unfinished = folder.with_suffix(".building")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        build(unfinished)
        shutil.rmtree(folder, ignore_errors=True)  # one that a power cut left incomplete
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
