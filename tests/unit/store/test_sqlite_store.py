"""The embedded store: the contract, and what only a file can do wrong.

Without it a crash or a full disk could lose jobs of an installation without etcd.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.state_store import StateStoreContract, collect
from trainctl.controller.store.port import (
    CompactedError,
    Put,
    StateStore,
    StoreCorruptError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
)
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import PermissionDeniedError


class TestSqliteStore(StateStoreContract):
    @asynccontextmanager
    async def open_store(self, folder: Path) -> AsyncIterator[StateStore]:
        store = await SqliteStore.open(folder / "store.sqlite3")
        try:
            yield store
        finally:
            await store.close()


def test_history_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s", history_revisions=5)
        for index in range(20):
            last = await store.txn((), (Put("a", b"%d" % index),))
        with pytest.raises(CompactedError):
            await collect(store, "a", 1, 1)
        assert await collect(store, "a", last.revision - 4, 5)
        await store.close()

    asyncio.run(main())


def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()}") as error:
            await SqliteStore.open(tmp_path / "s")
        assert error.value.hint
        await store.close()
        again = await SqliteStore.open(tmp_path / "s")
        await again.close()

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"hello, this is no database at all\n" * 40, b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=str(path)):
        asyncio.run(SqliteStore.open(path))
    assert path.read_bytes() == content


def test_a_new_store_is_for_its_owner_only(tmp_path: Path) -> None:
    """What all tenants have lies in it, whatever may be read in the folder."""

    async def main() -> None:
        before = os.umask(0o022)
        try:
            store = await SqliteStore.open(tmp_path / "store")
        finally:
            os.umask(before)
        await store.txn((), (Put("/a", b"1"),))
        modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in os.listdir(tmp_path)}
        assert len(modes) >= 3
        assert set(modes.values()) == {0o600}, modes
        await store.close()

    asyncio.run(main())


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    """SQLite itself does not say what is wrong."""
    (tmp_path / "store").mkdir()
    with pytest.raises(PermissionDeniedError, match=r"store: expected the file of a state store, .* found a folder"):
        asyncio.run(SqliteStore.open(tmp_path / "store"))


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(StoreCorruptError, match="another program"):
        asyncio.run(SqliteStore.open(path))


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def make() -> None:
        await (await SqliteStore.open(path)).close()

    asyncio.run(make())
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version=99")
    raw.close()
    with pytest.raises(StoreCorruptError, match="found 99"):
        asyncio.run(SqliteStore.open(path))


def test_a_closed_store_says_so_to_callers_and_watchers(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        watcher = asyncio.create_task(collect(store, "a", 1, 1))
        await store.get("a")
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await store.get("a")
        with pytest.raises(StoreUnavailableError):
            await watcher

    asyncio.run(main())


def test_a_full_disk_refuses_writes_only_as_long_as_it_is_full(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        await store.txn((), (Put("a", b"1"),))
        connection = store._database._connection
        connection.execute("PRAGMA max_page_count=20")
        await store.txn((), (Put("big/0", bytes(10_000)),))
        with pytest.raises(StoreFullError, match="full"):
            await store.txn((), (Put("big/1", bytes(500_000)),))
        found = await store.get("a")
        assert found is not None
        connection.execute("PRAGMA max_page_count=1000000")
        before = await store.range("big/")
        result = await store.txn((), (Put("big/later", bytes(50_000)),))
        assert result.revision == before.revision + 1
        await store.close()

    asyncio.run(main())


WRITER = """
import asyncio, sys
from pathlib import Path
from trainctl.controller.store.port import Put
from trainctl.controller.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    index = 0
    while True:
        result = await store.txn((), (Put(f"k/{index:06}", b"v"), Put("newest", b"%d" % index)))
        print(index, result.revision, flush=True)
        index += 1

asyncio.run(main())
"""


@pytest.mark.multiproc
def test_every_acknowledged_transaction_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().split() for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [line.split() for line in writer.stdout.read().splitlines() if len(line.split()) == 2]
    writer.wait(10)
    writer.stdout.close()

    async def look() -> None:
        store = await SqliteStore.open(path)
        found = await store.range("k/")
        newest = await store.get("newest")
        assert newest is not None
        assert len(found.items) >= len(acknowledged)
        assert int(newest.value) == len(found.items) - 1
        revisions = {item.key: item.mod_revision for item in found.items}
        for index, revision in acknowledged:
            assert revisions[f"k/{int(index):06}"] == int(revision)
        await store.close()

    asyncio.run(look())
