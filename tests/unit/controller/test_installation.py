"""A store is acted on only by its own installation, in a version that can read it, and not when it is an old copy.

Without it a controller pointed at the wrong store could stop the jobs of another installation.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trainctl.controller import keys
from trainctl.controller.installation import (
    SCHEMA,
    ForeignAuthorityError,
    ForeignStoreError,
    Installation,
    NewerStoreError,
    OldStoreError,
    Sighting,
    inspect,
    judge,
    load_sighting,
    stamp,
)
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.migrations import migrate
from trainctl.controller.store.port import Put
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import ConflictError, TrainctlError
from unit.controller.controller_harness import run, serving

OURS = Installation(name="ours")


@pytest.mark.parametrize(
    ("found", "seen", "error"),
    [
        (None, Sighting(), None),
        (OURS, Sighting(), None),
        (OURS, Sighting(epoch=3, revision=40), None),
        (OURS, Sighting(epoch=4, revision=40), OldStoreError),
        (OURS, Sighting(epoch=3, revision=41), OldStoreError),
        (None, Sighting(epoch=4, revision=1), OldStoreError),
        (Installation(name="theirs"), Sighting(), ForeignStoreError),
        (Installation(name="theirs", schema=SCHEMA + 1), Sighting(), NewerStoreError),
    ],
)
def test_what_may_be_acted_on(found: Installation | None, seen: Sighting, error: type[TrainctlError] | None) -> None:
    if error is None:
        judge(found, "ours", seen, epoch=3, revision=40)
        return
    with pytest.raises(error) as raised:
        judge(found, "ours", seen, epoch=3, revision=40)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ("", "", ""),
        ("", "a" * 64, ""),  # TLS is new
        ("a" * 64, "a" * 64, ""),
        (
            "a" * 64,
            "b" * 64,
            "SHA-256 aaaaaaaaaaaaaaaa...; this controller has another one (SHA-256 bbbbbbbbbbbbbbbb...)",
        ),
        ("a" * 64, "", "SHA-256 aaaaaaaaaaaaaaaa...; this one has no TLS"),
    ],
)
def test_whose_nodes_they_are(theirs: str, ours: str, words: str) -> None:
    found = replace(OURS, authority=theirs)
    if not words:
        judge(found, "ours", Sighting(), epoch=3, revision=40, authority=ours)
        return
    with pytest.raises(ForeignAuthorityError) as raised:
        judge(found, "ours", Sighting(), epoch=3, revision=40, authority=ours)
    assert words in str(raised.value)
    assert "--accept-store" in raised.value.hint


async def one_life(folder: Path, **settings: object) -> int:
    async with serving(folder, **settings) as running:
        return running.controller.leadership.epoch


def test_what_was_seen_is_forgotten_where_it_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "store-seen.json"
    for content in ("", "[]", "[" * 100_000, '{"epoch": "x"}'):
        file.write_text(content)
        assert load_sighting(file) == Sighting()


def test_a_restored_store_is_refused_until_somebody_accepts_it(tmp_path: Path) -> None:
    async def main() -> None:
        folder, backup = tmp_path / "run", tmp_path / "backup"
        assert await one_life(folder) == 1
        shutil.copy(folder / "store.sqlite3", backup)
        assert await one_life(folder) == 2
        assert load_sighting(folder / "store-seen.json").epoch == 2
        shutil.copy(backup, folder / "store.sqlite3")
        with pytest.raises(OldStoreError, match="epoch 1 and revision"):
            await one_life(folder)
        assert await one_life(folder, accept_store=True) == 1003  # beyond all that agents may have seen
        assert await one_life(folder) == 1004

    run(main)


def test_another_installations_store_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        await one_life(tmp_path / "a")
        (tmp_path / "b").mkdir()
        shutil.copy(tmp_path / "a" / "store.sqlite3", tmp_path / "b" / "store.sqlite3")
        with pytest.raises(ForeignStoreError):
            await one_life(tmp_path / "b")
        assert await one_life(tmp_path / "b", accept_store=True) == 1002
        assert await one_life(tmp_path / "b") == 1003  # it is b's now

    run(main)


def test_a_newer_versions_store_is_refused_whatever_is_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        leadership = await Leadership.take(store, Candidate(holder="newer"))
        value = keys.encode({"schema": SCHEMA + 1, "version": "9.9", "owner": {"something": "else"}})
        await leadership.txn((), (Put(keys.INSTALLATION, value),))
        await store.close()
        for accept in (False, True):
            with pytest.raises(NewerStoreError, match=f"written by trainctl 9.9 .schema {SCHEMA + 1}."):
                await one_life(tmp_path, accept_store=accept)

    run(main)


def test_an_older_controller_that_looked_before_a_newer_one_led_does_not_take_over(tmp_path: Path) -> None:
    """It was frozen between the look and the taking; meanwhile the values were brought to a form it cannot read."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        await store.txn((), (stamp("ours", schema=SCHEMA - 1),))
        looked = await inspect(store, "ours", Sighting(), accept=False, schema=SCHEMA - 1)
        older = Candidate(holder="older", compares=(looked.unmoved,), writes=(stamp("ours", schema=looked.schema),))
        newer = await Leadership.take(store, Candidate(holder="newer", writes=(stamp("ours", schema=SCHEMA - 1),)))
        await migrate(store, newer)
        with pytest.raises(ConflictError):
            await Leadership.take(store, older)
        with pytest.raises(NewerStoreError, match=f"reads up to schema {SCHEMA - 1}"):
            await inspect(store, "ours", Sighting(), accept=True, schema=SCHEMA - 1)
        found = await store.get(keys.INSTALLATION)
        assert found is not None
        assert keys.decode(found.value)["schema"] == SCHEMA
        await store.close()

    run(main)
