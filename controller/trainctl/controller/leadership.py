"""Being the leader: the epoch, and the door of every mutating transaction (control-plane reference 2.4).

In an exclusive store whoever opens it leads: the former one is surely dead. In a shared one the key ``/leader`` hangs
on a lease: who creates it leads for as long as the lease is renewed. A lease alone excludes nobody (a leader that was
frozen wakes up and believes that it still leads), so every write compares the key's create revision, and every command
carries the epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trainctl.controller import keys
from trainctl.controller.domain.term import TermRecord
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
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import ConflictError, FencedError, UnavailableError

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
        now_s: Unix seconds by its clock.
        watched: epoch of the leader whose end it saw; 0: of none.
        watched_ago_s: how long ago it saw for the last time that this one led.
        beyond: its epoch is to be greater than this, too.
        compares: what it goes by; otherwise it does not take over.
        writes: what it writes down as it takes over.
    """

    holder: str
    address: str = ""
    ttl_s: float = LEASE_TTL_S
    now_s: float = 0.0
    watched: int = 0
    watched_ago_s: float = 0.0
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


class Changes:
    """What became of a leader's changes, on the clock of its event loop.

    Attributes:
        took_s: of the newest that the store confirmed.
        failure: of the newest, if that was not confirmed; None if it was.
    """

    def __init__(self) -> None:
        self.took_s = 0.0
        self.failure: UnavailableError | None = None
        self._confirmed_s = self._failed_s = self.begin()

    def begin(self) -> float:
        """The time, for ``confirmed``."""
        return asyncio.get_running_loop().time()

    def confirmed(self, began_s: float) -> None:
        """One that was begun at ``began_s`` is known to be stored."""
        self._confirmed_s, self.failure = self.begin(), None
        self.took_s = self._confirmed_s - began_s

    def failed(self, error: UnavailableError) -> None:
        """One is not stored, or it is not known."""
        self._failed_s, self.failure = self.begin(), error

    @property
    def confirmed_age_s(self) -> float:
        """Since one was confirmed."""
        return self.begin() - self._confirmed_s

    @property
    def failed_age_s(self) -> float:
        """Since ``failure``."""
        return self.begin() - self._failed_s


class Leadership:
    """This controller's hold on the store; made by ``take``.

    Attributes:
        epoch: ``E``, greater than that of every controller before.
        term: what is written down of this term.
        former: the same of the one before; None: there was none.
        fenced: set as soon as this controller may no longer act: a write was refused because another one leads, or the
            lease is gone or was not renewed in time, or the store is an older one now.
        silence: why the lease could not be renewed the last time; None if it was.
        changes: what became of its changes.
        newest: revision of the store that is known to have been reached.
        found: a smaller one that it was at afterwards: somebody put an older copy in its place; 0: nobody did.
    """

    def __init__(
        self,
        store: StateStore,
        term: TermRecord,
        former: TermRecord | None,
        created: int,
        lease: int,
        counter: FenceCounter | None,
    ) -> None:
        self.epoch = term.epoch
        self.term = term
        self.former = former
        self.fenced = asyncio.Event()
        self.silence: UnavailableError | None = None
        self.changes = Changes()
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
        held, epoch_key = await store.get(keys.LEADER), await store.get(keys.EPOCH)
        if held is not None and not store.exclusive:
            leader = _leader_of(held)
            raise ConflictError(f"another controller leads: {leader.holder} at {leader.address}")
        if held is not None:
            await store.txn((_unmoved(keys.LEADER, held.mod_revision),), (Delete(keys.LEADER),))
        newest = keys.decode(epoch_key.value) if epoch_key is not None else 0
        former = _seen(await _former_term(store, newest), candidate) if newest else None
        epoch = max(newest, candidate.beyond) + 1
        lease = 0 if store.exclusive else await store.lease_grant(candidate.ttl_s)
        term = TermRecord(
            epoch=epoch,
            holder=candidate.holder,
            address=candidate.address,
            ttl_s=candidate.ttl_s if lease else 0.0,
            seen_s=candidate.now_s,
        )
        record = keys.encode({"holder": candidate.holder, "address": candidate.address, "epoch": epoch})
        epoch_unmoved = _unmoved(keys.EPOCH, epoch_key.mod_revision if epoch_key else 0)
        compares = (_unmoved(keys.LEADER, 0), epoch_unmoved, *candidate.compares)
        leads = (Put(keys.LEADER, record, lease), Put(keys.EPOCH, keys.encode(epoch)), _put(term))
        writes = (*leads, *candidate.writes)
        began_s = asyncio.get_running_loop().time()
        try:
            taken = await store.txn(compares, writes)
        except StoreUnavailableError:
            found = await store.get(keys.LEADER)
            if found is None or not lease or found.lease != lease:
                raise
            return cls(store, term, former, found.create_revision, lease, counter)
        if not taken.succeeded:
            raise ConflictError("another controller took the leadership at this moment", hint="try again")
        taken_over = cls(store, term, former, taken.revision, lease, counter)
        taken_over.changes.confirmed(began_s)
        return taken_over

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
                renewed_s, self.silence = began_s, None
                await asyncio.sleep(every_s)
            except (StoreUnavailableError, TimeoutError) as error:
                late = StoreUnavailableError("the state store did not renew the leader's lease in time")
                self.silence = error if isinstance(error, StoreUnavailableError) else late
                _log.warning("the leader's lease could not be renewed: %s", self.silence)
                await asyncio.sleep(min(_RETRY_S, every_s / 2))
        self.fenced.set()

    async def sign(self, now_s: float) -> None:
        """Writes down that this controller leads at ``now_s``: for whoever asks later since when nobody did.

        Raises:
            FencedError: another controller leads.
            StoreUnavailableError: the store does not answer.
        """
        term = replace(self.term, seen_s=now_s)
        await self.txn((), (_put(term),))
        self.term = term

    async def resign(self, now_s: float) -> None:
        """Gives the leadership up at once, so that the next one need not wait for the lease to run out."""
        if not self.fenced.is_set():
            with contextlib.suppress(UnavailableError, FencedError):
                await self.sign(now_s)
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
        began_s, before = self.changes.begin(), self.newest
        try:
            result = await self._store.txn((self._held, *compares), operations)
        except UnavailableError as error:
            self.changes.failed(error)
            raise
        self.saw(result.revision, asked_at=before)
        if result.succeeded:
            self.changes.confirmed(began_s)
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


async def wait_vacant(store: StateStore, leader: Leader) -> float:
    """Returns when ``leader`` leads no more, or somebody else does: how long ago it was last seen to lead, in seconds.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    loop = asyncio.get_running_loop()
    seen_s = loop.time()
    while True:
        asked_s = loop.time()
        read = await store.range(keys.LEADER)
        if not any(found.key == keys.LEADER and found.create_revision == leader.revision for found in read.items):
            return loop.time() - seen_s
        seen_s = asked_s
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                # From this very read on: what came before it may be compacted, and then there is nothing to wait for.
                async for batch in store.watch(keys.LEADER, read.revision + 1):
                    if any(event.key == keys.LEADER and event.current is None for event in batch.events):
                        return loop.time() - seen_s
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


async def _former_term(store: StateStore, epoch: int) -> TermRecord:
    """What the leader of ``epoch`` wrote down; only the epoch, where an older version led."""
    found = await store.get(keys.TERM)
    if found is None:
        return TermRecord(epoch=epoch)
    with reading(keys.TERM):
        term = from_wire(TermRecord, keys.decode(found.value))
    return term if term.epoch == epoch else TermRecord(epoch=epoch)


def _seen(former: TermRecord, candidate: Candidate) -> TermRecord:
    """The term before, with what the candidate knows of it: a lease that ran out was renewed within its time."""
    if former.epoch != candidate.watched:
        return former
    return replace(former, seen_s=max(former.seen_s, candidate.now_s - candidate.watched_ago_s - former.ttl_s))


def _put(term: TermRecord) -> Put:
    return Put(keys.TERM, keys.encode(to_wire(term)))


def _unmoved(key: str, revision: int) -> Compare:
    return Compare(key, Target.MOD_REVISION, revision)
