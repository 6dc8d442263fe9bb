"""The blocking half of the embedded store: revisions and compare-and-swap over SQLite tables, for one thread."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainctl.controller.store.limits import check_limits
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    Delete,
    KeyEvent,
    KeyValue,
    Operation,
    Put,
    RangeResult,
    StoreCondition,
    Target,
    TransactionLimitError,
    TxnResult,
    WatchBatch,
)
from trainctl.controller.store.schema import open_database

_COLUMNS = "key, value, create_revision, mod_revision, version, lease"
_LAST_CHARACTER = chr(0x10FFFF)


class Database:
    """All state of the store on one connection. Every method is one SQLite transaction; call from one thread at a time.

    Args:
        path: the file.
        history_revisions: how many revisions a watch can go back; older ones are compacted now and then.
    """

    def __init__(self, path: Path, *, history_revisions: int) -> None:
        self._history_revisions = history_revisions
        self._path = path
        self._connection = open_database(path)

    def get(self, key: str) -> KeyValue | None:
        """The key as of now."""
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None else _key_value(row)

    def range(self, prefix: str, limit: int, start_after: str) -> RangeResult:
        """A page of keys, with the revision of the same snapshot."""
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM keys WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?",
                (prefix, start_after, prefix + _LAST_CHARACTER, limit + 1 if limit else -1),
            ).fetchall()
            revision = self._meta("revision")
        finally:
            self._connection.execute("COMMIT")
        more = bool(limit) and len(rows) > limit
        items = tuple(_key_value(row) for row in (rows[:limit] if more else rows))
        return RangeResult(items=items, revision=revision, more=more)

    def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """Compare and swap; durable on return."""
        check_limits(compares, operations)
        with _transaction(self._connection):
            revision = self._meta("revision")
            current = [self.get(compare.key) for compare in compares]
            holds = all(_holds(c, found) for c, found in zip(compares, current, strict=True))
            if holds:
                revision = self._apply(operations, revision)
        return TxnResult(succeeded=holds, revision=revision, current=() if holds else tuple(current))

    def events(self, prefix: str, start_revision: int, limit: int) -> tuple[list[WatchBatch], int]:
        """Changes under ``prefix`` of the next ``limit`` revisions, and the revision to ask from next.

        Raises:
            CompactedError: ``start_revision`` is not in the history any more.
        """
        self._connection.execute("BEGIN")
        try:
            compacted, newest = self._meta("compacted"), self._meta("revision")
            if start_revision <= compacted:
                raise CompactedError(start_revision, compacted)
            end = min(newest, start_revision + limit - 1)
            rows = self._connection.execute(
                "SELECT key, value, create_revision, revision, version, lease FROM history "
                "WHERE revision BETWEEN ? AND ? AND key >= ? AND key < ? ORDER BY revision, key",
                (start_revision, end, prefix, prefix + _LAST_CHARACTER),
            ).fetchall()
        finally:
            self._connection.execute("COMMIT")
        return _batches(rows), max(end + 1, start_revision)

    def compact(self, revision: int) -> None:
        """Forgets history up to ``revision``, never beyond the newest."""
        with _transaction(self._connection):
            self._compact(min(revision, self._meta("revision")))

    def grant_lease(self, ttl_s: float) -> int:
        """A new lease number, never used before."""
        with _transaction(self._connection):
            lease = self._meta("last_lease") + 1
            self._set_meta("last_lease", lease)
            self._connection.execute("INSERT INTO leases VALUES (?, ?)", (lease, ttl_s))
        return lease

    def leases(self) -> dict[int, float]:
        """Time to live of every lease."""
        return dict(self._connection.execute("SELECT id, ttl_s FROM leases"))

    def drop_leases(self, leases: Iterable[int]) -> int:
        """Removes leases and, at one revision, their keys; returns the revision."""
        with _transaction(self._connection):
            revision = self._meta("revision")
            keys: list[Operation] = []
            for lease in leases:
                found = self._connection.execute("SELECT key FROM keys WHERE lease = ?", (lease,)).fetchall()
                keys += [Delete(key) for (key,) in found]
                self._connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
            return self._apply(keys, revision)

    def size_bytes(self) -> int:
        """Bytes of the database and its write-ahead log."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def condition(self) -> StoreCondition:
        """See ``StateStore.condition``; the limit is SQLite's own."""
        (pages,) = self._connection.execute("PRAGMA max_page_count").fetchone()
        (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        free_bytes = shutil.disk_usage(self._path.parent).free
        return StoreCondition(size_bytes=self.size_bytes(), limit_bytes=pages * page_bytes, disk_free_bytes=free_bytes)

    def close(self) -> None:
        """Closes the connection; SQLite then folds the write-ahead log into the file."""
        self._connection.close()

    def _meta(self, name: str) -> int:
        (value,) = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(value)

    def _set_meta(self, name: str, value: int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))

    def _apply(self, operations: Sequence[Operation], revision: int) -> int:
        """Carries out the operations at the next revision; a transaction that changes nothing takes none."""
        new = revision + 1
        changed = False
        for operation in operations:
            old = self.get(operation.key)
            if isinstance(operation, Put):
                self._put(operation, old, new)
                changed = True
            elif old is not None:
                self._connection.execute("DELETE FROM keys WHERE key = ?", (operation.key,))
                self._connection.execute("INSERT INTO history VALUES (?, ?, NULL, 0, 0, 0)", (new, operation.key))
                changed = True
        if not changed:
            return revision
        self._set_meta("revision", new)
        if new - self._meta("compacted") > 2 * self._history_revisions:
            self._compact(new - self._history_revisions)
        return new

    def _put(self, put: Put, old: KeyValue | None, revision: int) -> None:
        if put.lease and put.lease not in self.leases():
            raise TransactionLimitError(f"put of {put.key}: lease {put.lease} does not exist or has expired")
        created = old.create_revision if old else revision
        version = old.version + 1 if old else 1
        self._connection.execute(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
            (put.key, put.value, created, revision, version, put.lease),
        )
        self._connection.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)", (revision, put.key, put.value, created, version, put.lease)
        )

    def _compact(self, revision: int) -> None:
        if revision > self._meta("compacted"):
            self._connection.execute("DELETE FROM history WHERE revision <= ?", (revision,))
            self._set_meta("compacted", revision)


class _transaction:  # noqa: N801 - reads as a statement
    """One write transaction: committed at the end of the block, rolled back on an exception."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            # Also after a commit that failed: SQLite may leave the transaction open, and nothing could begin any more.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _key_value(row: Sequence[Any]) -> KeyValue:
    key, value, created, modified, version, lease = row
    return KeyValue(
        key=key, value=bytes(value), create_revision=created, mod_revision=modified, version=version, lease=lease
    )


def _holds(compare: Compare, found: KeyValue | None) -> bool:
    if compare.target is Target.VALUE:
        return found is not None and found.value == compare.expected
    return compare.expected == (0 if found is None else getattr(found, compare.target.value))


def _batches(rows: Sequence[Sequence[Any]]) -> list[WatchBatch]:
    by_revision: dict[int, list[KeyEvent]] = {}
    for row in rows:
        key, value, _, revision, _, _ = row
        current = None if value is None else _key_value(row)
        by_revision.setdefault(revision, []).append(KeyEvent(key=key, current=current))
    return [WatchBatch(revision=revision, events=tuple(events)) for revision, events in by_revision.items()]
