"""Fixtures of tests against the S3 store; a module that wants them names this one in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from object_store.store import Store, bucket, emulator


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, int]]:
    """Where the server listens."""
    with emulator() as where:
        yield where


@pytest.fixture
def store(upstream: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket of its own, behind a proxy of its own."""
    with bucket(upstream, monkeypatch) as made:
        yield made
