"""Stored values of an older version are brought to today's form: by the leader, before it reads or serves anything.

A step is a pure function of one value. It is carried out in transactions of bounded size; each also writes down how far
it came, so that whoever leads next goes on there, wherever the one before died. Versions that know only older forms
refuse the store from the moment the first step begins (``STORE_NEWER``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainctl.controller import keys
from trainctl.controller.installation import Installation
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import Compare, Delete, KeyValue, Operation, Put, StateStore, Target
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import ConflictError, InternalError
from trainctl.protos.version import package_version

_log = logging.getLogger(__name__)
PAGE_KEYS = 40
"""Compares and operations of so many keys fit a transaction."""
PAGE_BYTES = 1 << 19
"""Of new values in one transaction, unless a single one is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step from the form before to form ``to``.

    Attributes:
        to: number of the form.
        what: what is different, for people.
        prefix: keys it looks at, in ascending order.
        change: from key and value to the value as it is to be; None: the key goes. Without it no value changes: older
            versions, which would lose what they do not know when they write, are only kept out. Registrations of agents
            cannot be changed.
    """

    to: int
    what: str
    prefix: str = keys.ROOT
    change: Callable[[str, Any], Any] | None = None


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        to=2,
        what="jobs have owners and know which figures they missed; events name the leader that wrote them; leaders "
        "write down when they led; deletions name who asked for them; damaged checkpoints are written down; what saves "
        "and loads took is kept",
    ),
)
"""All steps, in order: the last one's number is ``installation.SCHEMA``."""


async def migrate(
    store: StateStore, leadership: Leadership, migrations: Sequence[Migration] = MIGRATIONS
) -> tuple[Migration, ...]:
    """Carries out what is due; returns it.

    Args:
        store: to read from.
        leadership: written through, so that a leader that was followed changes nothing.
        migrations: all steps, in order.

    Raises:
        StoreCorruptError: a value cannot be read; nothing of its transaction was written.
        InternalError: a step changes a registration.
        FencedError: another controller leads, and goes on.
    """
    entry = await store.get(keys.INSTALLATION)
    if entry is None:
        return ()
    with reading(keys.INSTALLATION):
        installation = from_wire(Installation, keys.decode(entry.value))
    begun, after = await _begun(store)
    due = tuple(step for step in migrations if step.to > installation.schema or step.to == begun)
    for step in due:
        _log.info("the state store is brought to schema %d: %s", step.to, step.what)
        if step.to != begun:
            installation, after = replace(installation, schema=step.to, version=package_version()), ""
            begin = Put(keys.INSTALLATION, keys.encode(to_wire(installation)))
            await leadership.txn((), (begin, _reached(step, "")) if step.change is not None else (begin,))
        if step.change is not None:
            await _carry_out(store, leadership, step, step.change, after)
            await leadership.txn((), (Delete(keys.MIGRATION),))
    return due


async def _carry_out(
    store: StateStore, leadership: Leadership, step: Migration, change: Callable[[str, Any], Any], after: str
) -> None:
    while True:
        page = await store.range(step.prefix, limit=PAGE_KEYS, start_after=after)
        for group in _transactions(page.items, change):
            after = group.last
            if not group.operations:
                continue
            result = await leadership.txn(group.compares, (*group.operations, _reached(step, after)))
            if not result.succeeded:
                raise ConflictError(f"somebody else wrote to the state store near {after} while it was migrated")
        if not page.more:
            return


def _reached(step: Migration, key: str) -> Operation:
    return Put(keys.MIGRATION, keys.encode({"to": step.to, "after": key}))


async def _begun(store: StateStore) -> tuple[int, str]:
    """The step that an earlier leader left unfinished, and the last key that it changed; 0 if there is none."""
    found = await store.get(keys.MIGRATION)
    if found is None:
        return 0, ""
    with reading(keys.MIGRATION):
        record = keys.decode(found.value)
        return int(record["to"]), str(record["after"])


@dataclass(frozen=True, slots=True)
class _Group:
    last: str
    compares: tuple[Compare, ...] = ()
    operations: tuple[Operation, ...] = ()


def _transactions(items: Sequence[KeyValue], change: Callable[[str, Any], Any]) -> list[_Group]:
    """The changes of some keys, cut into what one transaction takes. Pure."""
    groups: list[_Group] = []
    open_bytes = PAGE_BYTES + 1
    for item in items:
        operation = _changed(item, change)
        size_bytes = len(operation.value) if isinstance(operation, Put) else 0
        if open_bytes + size_bytes > PAGE_BYTES:
            groups.append(_Group(item.key))
            open_bytes = 0
        open_bytes += size_bytes
        group = replace(groups[-1], last=item.key)
        if operation is not None:
            unmoved = Compare(item.key, Target.MOD_REVISION, item.mod_revision)
            group = replace(group, compares=(*group.compares, unmoved), operations=(*group.operations, operation))
        groups[-1] = group
    return groups


def _changed(item: KeyValue, change: Callable[[str, Any], Any]) -> Operation | None:
    if item.key in (keys.LEADER, keys.EPOCH, keys.TERM, keys.INSTALLATION, keys.MIGRATION):
        return None
    with reading(item.key):
        value = keys.decode(item.value)
        wanted = change(item.key, value)
    if wanted != value and item.key.startswith(keys.NODES):
        raise InternalError(
            f"a step changes {item.key}: its revision is the life of that agent, whose workers would be ended",
            hint="registrations are written anew by agents; read older ones as they are",
        )
    if wanted is None:
        return Delete(item.key)
    return None if wanted == value else Put(item.key, keys.encode(wanted), item.lease)
