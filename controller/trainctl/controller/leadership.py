"""Being the leader: the epoch, and the door of every mutating transaction (control-plane reference 2.4).

In an exclusive store whoever opens it leads: the former one is surely dead. In a shared one the key ``/leader`` hangs
on a lease: who creates it leads for as long as the lease is renewed. A lease alone excludes nobody (a leader that was
frozen wakes up and believes that it still leads), so every write compares the key's create revision, and every command
carries the epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainctl.controller import keys
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    Delete,
    KeyValue,
    Operation,
    Put,
    StateStore,
    StoreUnavailableError,
    Target,
    TxnResult,
)
from trainctl.controller.stored import reading
from trainctl.core.errors import ConflictError, FencedError

_log = logging.getLogger(__name__)

LEASE_TTL_S = 10.0
"""How long a leader that says nothing is waited for."""
RENEWALS_PER_TTL = 4
_MARGIN = 0.2
"""Part of the lease's time at whose beginning a leader that could not renew it stops by itself."""
_LOOK_AGAIN_S = 5.0
"""Safety net behind the watch for the end of a leader."""
_RETRY_S = 0.5


class FenceCounter(Protocol):
    """Told about every write that was refused."""

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Who wants to lead.

    Attributes:
        holder: host and process, for people.
        address: where clients and agents reach it.
        ttl_s: of its lease.
        beyond: its epoch is to be greater than this, too.
        compares: what it goes by; otherwise it does not take over.
        writes: what it writes down as it takes over.
    """

    holder: str
    address: str = ""
    ttl_s: float = LEASE_TTL_S
    beyond: int = 0
    compares: tuple[Compare, ...] = ()
    writes: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who leads, as the store shows it."""

    holder: str
    address: str
    epoch: int
    revision: int
    """That created its key."""


class Leadership:
    """This controller's hold on the store; made by ``take``.

    Attributes:
        epoch: ``E``, greater than that of every controller before.
        fenced: set as soon as this controller may no longer act: a write was refused because another one leads, or the
            lease is gone or was not renewed in time, or the store is an older one now.
        newest: revision of the store that is known to have been reached.
        found: a smaller one that it was at afterwards: somebody put an older copy in its place; 0: nobody did.
    """

    def __init__(self, store: StateStore, epoch: int, created: int, lease: int, counter: FenceCounter | None) -> None:
        self.epoch = epoch
        self.fenced = asyncio.Event()
        self.newest = created
        self.found = 0
        self._store = store
        self._lease = lease
        self._held = Compare(keys.LEADER, Target.CREATE_REVISION, created)
        self._counter = counter

    @classmethod
    async def take(cls, store: StateStore, candidate: Candidate, *, counter: FenceCounter | None = None) -> Leadership:
        """Takes the leadership now.

        Raises:
            ConflictError: another controller leads, or took it just now.
            StoreUnavailableError: the store did not answer.
        """
        former, epoch_key = await store.get(keys.LEADER), await store.get(keys.EPOCH)
        if former is not None and not store.exclusive:
            leader = _leader_of(former)
            raise ConflictError(f"another controller leads: {leader.holder} at {leader.address}")
        if former is not None:
            await store.txn((_unmoved(keys.LEADER, former.mod_revision),), (Delete(keys.LEADER),))
        epoch = max(keys.decode(epoch_key.value) if epoch_key is not None else 0, candidate.beyond) + 1
        lease = 0 if store.exclusive else await store.lease_grant(candidate.ttl_s)
        record = keys.encode({"holder": candidate.holder, "address": candidate.address, "epoch": epoch})
        epoch_unmoved = _unmoved(keys.EPOCH, epoch_key.mod_revision if epoch_key else 0)
        compares = (_unmoved(keys.LEADER, 0), epoch_unmoved, *candidate.compares)
        writes = (Put(keys.LEADER, record, lease), Put(keys.EPOCH, keys.encode(epoch)), *candidate.writes)
        try:
            taken = await store.txn(compares, writes)
        except StoreUnavailableError:
            found = await store.get(keys.LEADER)
            if found is None or not lease or found.lease != lease:
                raise
            return cls(store, epoch, found.create_revision, lease, counter)
        if not taken.succeeded:
            raise ConflictError("another controller took the leadership at this moment", hint="try again")
        return cls(store, epoch, taken.revision, lease, counter)

    async def renew(self, monotonic_s: Callable[[], float], ttl_s: float) -> None:
        """Keeps the lease alive until it cannot be kept, then sets ``fenced``; in an exclusive store it never ends.

        A leader that cannot renew stops before others may begin, measured on its own clock from before the last renewal
        that was answered: so not even its last command is late.
        """
        if not self._lease:
            await asyncio.Event().wait()
        every_s, renewed_s = ttl_s / RENEWALS_PER_TTL, monotonic_s()
        while (left_s := renewed_s + (1 - _MARGIN) * ttl_s - monotonic_s()) > 0 and not self.fenced.is_set():
            began_s = monotonic_s()
            try:
                async with asyncio.timeout(min(every_s, left_s)):
                    if not await self._store.lease_keep_alive(self._lease):
                        _log.error("the leader's lease is gone: another controller may lead")
                        break
                renewed_s = began_s
                await asyncio.sleep(every_s)
            except (StoreUnavailableError, TimeoutError) as error:
                _log.warning("the leader's lease could not be renewed: %s", str(error) or "no answer in time")
                await asyncio.sleep(min(_RETRY_S, every_s / 2))
        self.fenced.set()

    async def resign(self) -> None:
        """Gives the leadership up at once, so that the next one need not wait for the lease to run out."""
        self.fenced.set()
        if self._lease:
            await self._store.lease_revoke(self._lease)

    async def confirm(self) -> None:
        """Asks the store whether this controller still leads: before something outside of it is changed.

        It may be deposed right afterwards. So what is done then must be harmless if it is done late, such as removing
        what nobody can want back, or creating a file only if there is none.

        Raises:
            FencedError: another controller leads; ``fenced`` is set.
            StoreUnavailableError: nobody knows.
        """
        if not self.fenced.is_set():
            leader = await self._store.get(keys.LEADER)
            if leader is not None and leader.create_revision == self._held.expected:
                return
            self.fenced.set()
        raise self._deposed()

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """A transaction that changes something only while this controller leads.

        Raises:
            FencedError: another controller leads; ``fenced`` is set.
            StoreUnavailableError: the outcome is unknown.
        """
        if self.fenced.is_set():
            raise self._deposed()
        before = self.newest
        result = await self._store.txn((self._held, *compares), operations)
        self.saw(result.revision, asked_at=before)
        if result.succeeded:
            return result
        leader = result.current[0]
        if leader is None or leader.create_revision != self._held.expected:
            self._count("trainctl_fenced_writes_total")
            self.fenced.set()
            raise self._deposed()
        self._count("trainctl_cas_conflicts_total")
        return TxnResult(succeeded=False, revision=result.revision, current=result.current[1:])

    def saw(self, revision: int, *, asked_at: int) -> None:
        """An answer of the store.

        Args:
            revision: the store's, as the answer says.
            asked_at: ``newest`` when it was asked: answers overtake each other.

        Raises:
            FencedError: it is older than it was; ``fenced`` is set.
        """
        if revision < asked_at:
            self.found = revision
            self.fenced.set()
            raise self._deposed()
        self.newest = max(self.newest, revision)

    def _count(self, name: str) -> None:
        if self._counter is not None:
            self._counter.inc(name)

    def _deposed(self) -> FencedError:
        if self.found:
            return FencedError(
                f"the state store went back from revision {self.newest} to {self.found} under this controller",
                hint="it stops: somebody put an older copy in its place; agents and workers run on",
            )
        return FencedError(
            f"this controller (epoch {self.epoch}) no longer leads: another one took over",
            hint="it stops by itself; agents and workers run on under the new one",
        )


async def find_leader(store: StateStore) -> Leader | None:
    """Who leads now."""
    found = await store.get(keys.LEADER)
    return _leader_of(found) if found is not None else None


async def wait_vacant(store: StateStore, leader: Leader) -> None:
    """Returns when ``leader`` leads no more, or somebody else does.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    while True:
        read = await store.range(keys.LEADER)
        if not any(found.key == keys.LEADER and found.create_revision == leader.revision for found in read.items):
            return
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                # From this very read on: what came before it may be compacted, and then there is nothing to wait for.
                async for batch in store.watch(keys.LEADER, read.revision + 1):
                    if any(event.key == keys.LEADER and event.current is None for event in batch.events):
                        return
        except (TimeoutError, CompactedError):
            continue


def _leader_of(found: KeyValue) -> Leader:
    with reading(keys.LEADER):
        record = keys.decode(found.value)
        return Leader(
            holder=str(record["holder"]),
            address=str(record.get("address", "")),
            epoch=int(record["epoch"]),
            revision=found.create_revision,
        )


def _unmoved(key: str, revision: int) -> Compare:
    return Compare(key, Target.MOD_REVISION, revision)
