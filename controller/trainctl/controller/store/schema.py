"""The tables of the embedded store, and the checks that a file is one of ours."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from trainctl.controller.store.port import StoreCorruptError
from trainctl.core.errors import PermissionDeniedError

APPLICATION_ID = 0x74726374
"""``trct`` in the SQLite header: no other program's file carries it."""

SCHEMA_VERSION = 1

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL,
    version INTEGER NOT NULL, lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_lease ON keys (lease) WHERE lease != 0;
CREATE TABLE history (
    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL, lease INTEGER NOT NULL, PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_s REAL NOT NULL);
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0), ('last_lease', 0);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Opens the file, or makes it, with durable commits. A new one, and what lies beside it, is for its owner only.

    Raises:
        StoreCorruptError: not an SQLite file, not ours, from another version, or damaged.
        PermissionDeniedError: it cannot be opened.
    """
    with contextlib.suppress(OSError):  # SQLite itself tells what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except sqlite3.OperationalError as error:
        found = "found a folder" if path.is_dir() else f"it cannot be opened ({error})"
        raise PermissionDeniedError(
            f"{path}: expected the file of a state store, or a new one: {found}",
            hint="name a file in a folder that this user can write, with --store file:PATH",
        ) from error
    try:
        _check_and_create(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreCorruptError(
            f"{path}: expected a state store of this controller, found a file that SQLite cannot use ({error})",
            hint="move the file away to start empty, or restore it from a copy",
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check_and_create(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreCorruptError(
            f"{path}: expected a state store of this controller, found another program's SQLite file",
            hint="give another path with --store",
        )
    if tables and version != SCHEMA_VERSION:
        raise StoreCorruptError(
            f"{path}: expected store schema {SCHEMA_VERSION}, found {version}",
            hint="run the trainctl version that wrote it, or move the file away to start empty",
        )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    if not tables:
        create = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION};"
        connection.executescript(f"BEGIN; {create} {_TABLES} COMMIT;")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorruptError(f"{path}: the state store is damaged: {verdict}", hint="restore it from a copy")
