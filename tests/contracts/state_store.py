"""What every ``StateStore`` must do; an implementation's test class inherits this and opens one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from trainctl.controller.store.port import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    CompactedError,
    Compare,
    Delete,
    Put,
    StateStore,
    Target,
    TransactionLimitError,
    WatchBatch,
)
from waiting import PATIENCE_S

Body = Callable[[StateStore], Awaitable[None]]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - a store tells nobody that a lease has run out
            await asyncio.sleep(0.01)


async def collect(store: StateStore, prefix: str, start: int, count: int) -> list[WatchBatch]:
    batches = []
    async with asyncio.timeout(PATIENCE_S):
        async for batch in store.watch(prefix, start):
            batches.append(batch)
            if len(batches) == count:
                break
    return batches


class StateStoreContract:
    lease_ttl_s = 0.3

    def open_store(self, folder: Path) -> AbstractAsyncContextManager[StateStore]:
        raise NotImplementedError

    def run(self, folder: Path, body: Body) -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE_S * 2), self.open_store(folder) as store:
                await body(store)

        asyncio.run(main())

    def test_put_sets_revisions_and_version(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            first = await store.txn((), (Put("a", b"1"), Put("b", b"2")))
            second = await store.txn((), (Put("a", b"3"),))
            a, b = await store.get("a"), await store.get("b")
            assert a is not None
            assert b is not None
            assert (a.value, a.create_revision, a.mod_revision, a.version) == (b"3", first.revision, second.revision, 2)
            assert b.mod_revision == first.revision
            assert second.revision == first.revision + 1
            assert await store.get("absent") is None

        self.run(tmp_path, body)

    def test_delete_then_create_begins_a_new_life(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            first = await store.txn((), (Put("a", b"1"),))
            await store.txn((), (Delete("a"),))
            assert await store.get("a") is None
            await store.txn((), (Put("a", b"2"),))
            found = await store.get("a")
            assert found is not None
            assert found.version == 1
            assert found.create_revision > first.revision

        self.run(tmp_path, body)

    @pytest.mark.parametrize("target", list(Target))
    def test_a_failed_compare_changes_nothing_and_shows_what_is_there(self, tmp_path: Path, target: Target) -> None:
        async def body(store: StateStore) -> None:
            before = await store.txn((), (Put("a", b"1"),))
            wrong: int | bytes = b"other" if target is Target.VALUE else 99
            result = await store.txn((Compare("a", target, wrong),), (Put("a", b"2"), Put("b", b"2")))
            assert not result.succeeded
            assert result.revision == before.revision
            assert result.current == (await store.get("a"),)
            assert await store.get("b") is None

        self.run(tmp_path, body)

    @pytest.mark.parametrize("target", list(Target))
    def test_a_compare_that_holds(self, tmp_path: Path, target: Target) -> None:
        async def body(store: StateStore) -> None:
            await store.txn((), (Put("a", b"1"),))
            found = await store.get("a")
            assert found is not None
            expected = getattr(found, target.value)
            assert (await store.txn((Compare("a", target, expected),), (Put("a", b"2"),))).succeeded

        self.run(tmp_path, body)

    def test_an_absent_key_has_zero_numbers_and_no_value(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            for target in (Target.CREATE_REVISION, Target.MOD_REVISION, Target.VERSION):
                assert (await store.txn((Compare("a", target, 0),), ())).succeeded
            assert not (await store.txn((Compare("a", Target.VALUE, b""),), ())).succeeded

        self.run(tmp_path, body)

    def test_one_of_many_writers_wins(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            async def take(who: int) -> bool:
                result = await store.txn(
                    (Compare("/leader", Target.CREATE_REVISION, 0),), (Put("/leader", b"%d" % who),)
                )
                return result.succeeded

            won = await asyncio.gather(*(take(who) for who in range(20)))
            assert won.count(True) == 1

        self.run(tmp_path, body)

    def test_range_pages_in_order_and_stays_under_its_prefix(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            for name in ("j/3", "j/1", "j/2", "i/9", "k/0", "j"):
                await store.txn((), (Put(name, name.encode()),))
            everything = await store.range("j/")
            assert [item.key for item in everything.items] == ["j/1", "j/2", "j/3"]
            assert not everything.more
            first = await store.range("j/", limit=2)
            assert [item.key for item in first.items] == ["j/1", "j/2"]
            assert first.more
            rest = await store.range("j/", limit=2, start_after="j/2")
            assert [item.key for item in rest.items] == ["j/3"]
            assert not rest.more

        self.run(tmp_path, body)

    def test_limits(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            with pytest.raises(TransactionLimitError, match="at most"):
                await store.txn((), [Put(f"k{i}", b"") for i in range(MAX_OPERATIONS + 1)])
            with pytest.raises(TransactionLimitError, match="bytes"):
                await store.txn((), (Put("big", bytes(MAX_VALUE_BYTES + 1)),))
            with pytest.raises(TransactionLimitError, match="bytes in a transaction"):
                await store.txn((), (Put("one", bytes(MAX_VALUE_BYTES)), Put("two", bytes(MAX_VALUE_BYTES))))
            with pytest.raises(TransactionLimitError, match="twice"):
                await store.txn((), (Put("a", b""), Delete("a")))
            with pytest.raises(TransactionLimitError, match="lease"):
                await store.txn((), (Put("a", b"", 987654321),))
            assert (await store.range("")).items == ()
            value = bytes(range(256)) * (MAX_VALUE_BYTES // 256)
            await store.txn((), (Put("largest", value),))
            found = await store.get("largest")
            assert found is not None
            assert found.value == value

        self.run(tmp_path, body)

    def test_watch_replays_then_follows_whole_revisions(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            first = await store.txn((), (Put("w/a", b"1"), Put("w/b", b"1"), Put("other", b"x")))
            await store.txn((), (Put("other", b"y"),))
            await store.txn((), (Delete("w/a"),))
            following = asyncio.create_task(collect(store, "w/", first.revision, 3))
            await asyncio.sleep(0)
            await store.txn((), (Put("w/c", b"3"),))
            batches = await following
            assert [[event.key for event in batch.events] for batch in batches] == [["w/a", "w/b"], ["w/a"], ["w/c"]]
            assert batches[0].revision == first.revision
            assert [batch.revision for batch in batches] == sorted({batch.revision for batch in batches})
            assert batches[1].events[0].current is None
            current = batches[0].events[0].current
            assert current is not None
            assert (current.value, current.mod_revision, current.version) == (b"1", first.revision, 1)

        self.run(tmp_path, body)

    def test_watch_of_compacted_history_says_so(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            for value in (b"1", b"2", b"3"):
                last = await store.txn((), (Put("a", value),))
            await store.compact(last.revision - 1)
            with pytest.raises(CompactedError) as error:
                await collect(store, "a", last.revision - 1, 1)
            assert error.value.compacted_revision == last.revision - 1
            assert len(await collect(store, "a", last.revision, 1)) == 1
            found = await store.get("a")
            assert found is not None
            assert found.value == b"3"

        self.run(tmp_path, body)

    def test_a_lease_that_runs_out_takes_its_keys_along_in_one_revision(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            lease = await store.lease_grant(self.lease_ttl_s)
            put = await store.txn((), (Put("l/a", b"1", lease), Put("l/b", b"1", lease), Put("l/c", b"1")))

            async def gone() -> bool:
                return await store.get("l/a") is None

            await until(gone)
            (deleted,) = await collect(store, "l/", put.revision + 1, 1)
            assert [(e.key, e.current) for e in deleted.events] == [("l/a", None), ("l/b", None)]
            assert await store.get("l/c") is not None
            assert not await store.lease_keep_alive(lease)

        self.run(tmp_path, body)

    def test_keep_alive_holds_a_lease(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            lease = await store.lease_grant(self.lease_ttl_s)
            short = await store.lease_grant(self.lease_ttl_s)
            await store.txn((), (Put("held", b"1", lease), Put("short", b"1", short)))

            async def short_is_gone() -> bool:
                assert await store.lease_keep_alive(lease)
                return await store.get("short") is None

            await until(short_is_gone)
            assert await store.get("held") is not None

        self.run(tmp_path, body)

    def test_revoke_ends_a_lease_at_once(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            lease = await store.lease_grant(60.0)
            await store.txn((), (Put("a", b"1", lease),))
            await store.lease_revoke(lease)
            assert await store.get("a") is None

        self.run(tmp_path, body)

    def test_it_tells_how_it_is(self, tmp_path: Path) -> None:
        async def body(store: StateStore) -> None:
            await store.txn((), (Put("a", bytes(100_000)),))
            found = await store.condition()
            assert found.size_bytes == await store.size_bytes()
            assert found.limit_bytes == 0 or found.size_bytes < found.limit_bytes
            assert found.alarms == ()
            if found.disk_free_bytes is not None:
                assert found.disk_free_bytes > 0

        self.run(tmp_path, body)

    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        async def fill(store: StateStore) -> None:
            await store.txn((), (Put("a", b"1"),))
            await store.txn((), (Put("a", b"2"),))

        async def look(store: StateStore) -> None:
            found = await store.get("a")
            assert found is not None
            assert (found.value, found.version) == (b"2", 2)
            result = await store.txn((), (Put("b", b"1"),))
            assert result.revision > found.mod_revision

        self.run(tmp_path, fill)
        self.run(tmp_path, look)
