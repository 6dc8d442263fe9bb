"""Being the leader: the epoch, and the door of every mutating transaction (control-plane reference 2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from trainctl.controller import keys
from trainctl.controller.store.port import Compare, Delete, Operation, Put, StateStore, Target, TxnResult
from trainctl.core.errors import ConflictError, FencedError


class FenceCounter(Protocol):
    """Told about every write that was refused."""

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        ...


class Leadership:
    """This controller's hold on the store; made by ``take``.

    The key ``/leader`` is bound to this controller's life: the store is exclusive, so whoever opens it knows that the
    former leader is dead and takes the key over. ``fenced`` is set when the key is found in other hands: then this
    process stops acting.

    Attributes:
        epoch: ``E``, greater than that of every controller before.
        fenced: set as soon as a write was refused because another one leads.
    """

    def __init__(self, store: StateStore, epoch: int, created: int, counter: FenceCounter | None) -> None:
        self.epoch = epoch
        self.fenced = asyncio.Event()
        self._store = store
        self._held = Compare(keys.LEADER, Target.CREATE_REVISION, created)
        self._counter = counter

    @classmethod
    async def take(cls, store: StateStore, holder: str, *, counter: FenceCounter | None = None) -> Leadership:
        """Takes the leadership of an exclusive store.

        Raises:
            ConflictError: another leader's key exists in a store that others may have open, or took it just now.
        """
        former, epoch_key = await store.get(keys.LEADER), await store.get(keys.EPOCH)
        if former is not None and not store.exclusive:
            raise ConflictError(f"another controller leads: {keys.decode(former.value)['holder']}")
        if former is not None:
            await store.txn((_unmoved(keys.LEADER, former.mod_revision),), (Delete(keys.LEADER),))
        epoch = (keys.decode(epoch_key.value) if epoch_key is not None else 0) + 1
        taken = await store.txn(
            (_unmoved(keys.LEADER, 0), _unmoved(keys.EPOCH, epoch_key.mod_revision if epoch_key is not None else 0)),
            (Put(keys.LEADER, keys.encode({"holder": holder, "epoch": epoch})), Put(keys.EPOCH, keys.encode(epoch))),
        )
        if not taken.succeeded:
            raise ConflictError("another controller took the leadership at this moment", hint="try again")
        return cls(store, epoch, taken.revision, counter)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """A transaction that changes something only while this controller leads.

        Raises:
            FencedError: another controller leads; ``fenced`` is set.
            StoreUnavailableError: the outcome is unknown.
        """
        if self.fenced.is_set():
            raise self._deposed()
        result = await self._store.txn((self._held, *compares), operations)
        if result.succeeded:
            return result
        leader = result.current[0]
        if leader is None or leader.create_revision != self._held.expected:
            self._count("trainctl_fenced_writes_total")
            self.fenced.set()
            raise self._deposed()
        self._count("trainctl_cas_conflicts_total")
        return TxnResult(succeeded=False, revision=result.revision, current=result.current[1:])

    def _count(self, name: str) -> None:
        if self._counter is not None:
            self._counter.inc(name)

    def _deposed(self) -> FencedError:
        return FencedError(
            f"this controller (epoch {self.epoch}) no longer leads: another one took over",
            hint="it stops by itself; agents and workers run on under the new one",
        )


def _unmoved(key: str, revision: int) -> Compare:
    return Compare(key, Target.MOD_REVISION, revision)
