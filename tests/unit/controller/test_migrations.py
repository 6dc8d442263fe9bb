"""Steps that change what is stored: the same in the end wherever a leader dies; nobody but the leader takes them.

Without it an upgrade that is broken off could leave a store that no version reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trainctl.controller import keys
from trainctl.controller.installation import Installation
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.migrations import MIGRATIONS, PAGE_KEYS, Migration, migrate
from trainctl.controller.store.port import Operation, Put, StoreUnavailableError
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.codec import to_wire
from trainctl.core.errors import FencedError, InternalError
from unit.controller.controller_harness import run

OLD = f"{keys.ROOT}/old/"


def count_up(key: str, value: Any) -> Any:
    """Not idempotent: carried out twice on a value it would show."""
    return value | {"count": value["count"] + 1} if key.startswith(OLD) else value


def drop_odd(key: str, value: Any) -> Any:
    return None if value["count"] % 2 else value


STEPS = (
    Migration(to=2, what="counts", prefix=keys.ROOT, change=count_up),
    Migration(to=3, what="odd ones go", prefix=OLD, change=drop_odd),
    Migration(to=4, what="nothing but the number"),
)


async def filled(path: Path, rng: Random) -> tuple[SqliteStore, dict[str, Any]]:
    store = await SqliteStore.open(path)
    values = {f"{OLD}{n:05}": {"count": rng.randrange(9), "pad": "x" * rng.choice([0, 9, 60_000])} for n in range(150)}
    items = [Put(key, keys.encode(value)) for key, value in values.items()]
    for start in range(0, len(items), 10):
        await store.txn((), items[start : start + 10])
    await store.txn((), (Put(keys.INSTALLATION, keys.encode(to_wire(Installation(name="i", schema=1)))),))
    return store, values


async def stored(store: SqliteStore) -> dict[str, Any]:
    return {item.key: keys.decode(item.value) for item in (await store.range(OLD)).items}


async def schema(store: SqliteStore) -> int:
    found = await store.get(keys.INSTALLATION)
    assert found is not None
    return int(keys.decode(found.value)["schema"])


class Dying:
    """Lets so many transactions through; the next one is lost, before or after it took effect."""

    def __init__(self, store: Any, left: int, *, applied: bool) -> None:
        self._txn, self._left, self._applied = store.txn, left, applied
        self.sizes: list[int] = []

    async def __call__(self, compares: Any, operations: Sequence[Operation]) -> Any:
        self.sizes.append(len(compares) + len(operations))
        if self._left == 0 and not self._applied:
            raise StoreUnavailableError("died")
        result = await self._txn(compares, operations)
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailableError("died")
        return result


@pytest.mark.parametrize("applied", [False, True])
def test_a_leader_may_die_between_any_two_transactions(tmp_path: Path, applied: bool) -> None:
    async def main() -> None:
        rng = Random(5)
        store, values = await filled(tmp_path / "s", rng)
        wanted = {key: v for key, value in values.items() if (v := drop_odd(key, count_up(key, value))) is not None}
        real: Any = store.txn
        lives = 0
        while True:
            lives += 1
            leadership = await Leadership.take(store, Candidate(holder=f"h{lives}"))
            patched: Any = store
            patched.txn = dying = Dying(type("S", (), {"txn": staticmethod(real)}), 1, applied=applied)
            try:
                await migrate(store, leadership, STEPS)
                break
            except StoreUnavailableError:
                # Older versions are kept out as soon as anything is in the new form.
                assert await stored(store) == values or await schema(store) > 1
            finally:
                patched.txn = real
                assert all(size <= 2 * PAGE_KEYS + 2 for size in dying.sizes)
        assert lives > 4
        assert await stored(store) == wanted
        assert await schema(store) == 4
        assert await store.get(keys.MIGRATION) is None
        assert await migrate(store, leadership, STEPS) == ()
        await store.close()

    run(main)


def test_one_that_was_followed_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        store, values = await filled(tmp_path / "s", Random(1))
        former = await Leadership.take(store, Candidate(holder="former"))
        await Leadership.take(store, Candidate(holder="heir"))
        with pytest.raises(FencedError):
            await migrate(store, former, STEPS)
        assert await stored(store) == values
        await store.close()

    run(main)


def test_an_empty_store_needs_no_step(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        leadership = await Leadership.take(store, Candidate(holder="h"))
        assert await migrate(store, leadership, STEPS) == ()
        await store.close()

    run(main)


def test_steps_are_numbered_without_a_gap() -> None:
    assert [step.to for step in MIGRATIONS] == list(range(2, 2 + len(MIGRATIONS)))


def test_no_step_may_touch_a_registration(tmp_path: Path) -> None:
    """Its revision is the incarnation of the agent: a new one would end all workers of the node."""
    steps = (Migration(to=2, what="all", change=lambda key, value: {**value, "more": 1}),)

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        await store.txn((), (Put(keys.INSTALLATION, keys.encode(to_wire(Installation(name="i", schema=1)))),))
        registered = await store.txn((), (Put(keys.node("n"), keys.encode({"node": "n"})),))
        leadership = await Leadership.take(store, Candidate(holder="h"))
        with pytest.raises(InternalError, match="nodes/n: its revision is the life of that agent"):
            await migrate(store, leadership, steps)
        found = await store.get(keys.node("n"))
        assert found is not None
        assert found.mod_revision == registered.revision
        await store.close()

    run(main)
