"""Whatever bytes lie in the store: the controller starts, or says which key it cannot read; it never falls over.

Without it one damaged value could keep a controller from starting, with no word about which.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.controller import keys
from trainctl.controller.store.port import Put, StateStore
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import TrainctlError
from unit.controller.controller_harness import create, run, serving, spec
from unit.domain.fuzz_effort import Effort

usual = Effort.of(os.environ)
ALLOWED = {"STORE_CORRUPT", "STORE_NEWER", "STORE_FOREIGN", "STORE_WENT_BACK"}
KNOWN = (
    keys.LEADER,
    keys.EPOCH,
    keys.INSTALLATION,
    keys.status("default", "u1"),
    keys.events("default", "u1", 1),
    keys.name("default", "a"),
    keys.node("node-0"),
    keys.node_mark("node-0"),
    keys.deleted("default", "u0"),
    keys.token("0123abcd"),
    keys.audit(1),
    keys.AUDIT_NEWEST,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.binary(max_size=40) | JSON.map(keys.encode) | st.just(b"j" + b"[" * 5000)


async def start(folder: Path) -> str:
    """The code of the error with which a controller does not start; empty if it does."""
    try:
        async with serving(folder):
            return ""
    except TrainctlError as error:
        return error.code if error.hint else "without a hint"


@Effort(examples=max(25, usual.examples // 10), seed=usual.seed)
@given(key=st.sampled_from(KNOWN), value=VALUES)
def test_any_bytes_under_any_key(tmp_path_factory: pytest.TempPathFactory, key: str, value: bytes) -> None:
    folder = tmp_path_factory.mktemp("store")

    async def main() -> None:
        store = await SqliteStore.open(folder / "store.sqlite3")
        await store.txn((), (Put(key, value),))
        await store.close()
        code = await start(folder)
        assert not code or code in ALLOWED

    asyncio.run(main())


def damage(value: Any, path: tuple[int, ...]) -> Any:
    """A copy in which the leaf that ``path`` leads to is something else."""
    if isinstance(value, dict) and value:
        name = sorted(value)[path[0] % len(value)]
        return {**value, name: damage(value[name], path[1:]) if path[1:] else {"unexpected": []}}
    if isinstance(value, list) and value:
        index = path[0] % len(value)
        inner = damage(value[index], path[1:]) if path[1:] else {"unexpected": []}
        return [*value[:index], inner, *value[index + 1 :]]
    return {"unexpected": []}


@Effort(examples=max(12, usual.examples // 20), seed=usual.seed)
@given(path=st.lists(st.integers(0, 50), min_size=1, max_size=5).map(tuple))
def test_a_field_that_is_something_else(tmp_path_factory: pytest.TempPathFactory, path: tuple[int, ...]) -> None:
    folder = tmp_path_factory.mktemp("store")

    async def main() -> None:
        async with serving(folder) as running:
            await running.client.call("CreateJob", create(spec()))
        store: StateStore = await SqliteStore.open(folder / "store.sqlite3")
        (status,) = [i for i in (await store.range(keys.JOBS)).items if i.key.endswith(keys.STATUS)]
        await store.txn((), (Put(status.key, keys.encode(damage(keys.decode(status.value), path))),))
        await store.close()
        code = await start(folder)
        assert not code or code in ALLOWED

    asyncio.run(main())


def test_the_key_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        await store.txn((), (Put(keys.name("default", "a"), b"j" + json.dumps(["x"]).encode()[:-1]),))
        await store.close()
        with pytest.raises(TrainctlError, match="names/default/a in the state store cannot be read") as found:
            async with serving(tmp_path):
                pass
        assert found.value.code == "STORE_CORRUPT"

    run(main)
