"""The ``StateStore`` port: the part of etcd v3 that the control plane needs (control-plane reference 2.1, 2.4).

Every transaction that changes something has one revision; all its changes share it. A change of a key is guarded by
comparing what was read before, so two writers never overwrite each other in silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from trainctl.core.errors import ConflictError, PreconditionError, UnavailableError, UsageError

MAX_OPERATIONS = 128
"""Compares plus operations in one transaction, as etcd's default."""

MAX_VALUE_BYTES = 1 << 20
"""Largest value; larger things belong on storage, with their URI and digest in the store."""

MAX_TRANSACTION_BYTES = 5 << 18
"""All values of one transaction: etcd takes requests of 1.5 MiB."""


class StoreUnavailableError(UnavailableError):
    """The store did not answer: whether a transaction was applied is unknown until its keys are read again."""

    code = "STORE_UNAVAILABLE"


class StoreClosedError(StoreUnavailableError):
    """This process has closed it, and will never hear from it again."""


class StoreFullError(UnavailableError):
    """The store has no room: nothing was written."""

    code = "STORE_FULL"


class StoreLockedError(ConflictError):
    """Another process holds the store."""

    code = "STORE_LOCKED"


class StoreCorruptError(PreconditionError):
    """The store's file is damaged, or is not one of ours."""

    code = "STORE_CORRUPT"


class CompactedError(PreconditionError):
    """The wanted history is gone: read the present state and watch from its revision on."""

    code = "COMPACTED"

    def __init__(self, wanted: int, compacted: int) -> None:
        super().__init__(
            f"watch from revision {wanted}: history up to revision {compacted} is compacted",
            hint="read the keys again and watch from the revision of that read",
        )
        self.compacted_revision = compacted


class TransactionLimitError(UsageError):
    """A transaction or a value is larger than any store accepts."""

    code = "TRANSACTION_TOO_LARGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as it stands.

    Attributes:
        key: the key.
        value: its bytes.
        create_revision: revision that created it (again after a delete).
        mod_revision: revision of its newest change.
        version: number of changes since it was created, from 1.
        lease: lease it dies with, 0 for none.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(StrEnum):
    """What of a key is compared."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VERSION = "version"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds if the key's ``target`` equals ``expected``; an absent key has the numbers 0, and no value."""

    key: str
    target: Target
    expected: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Sets a key, bound to ``lease`` unless that is 0."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a key; nothing happens if it is absent."""

    key: str


Operation = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """What became of a transaction.

    Attributes:
        succeeded: all compares held and the operations are durable.
        revision: of the store after it.
        current: the compared keys as they stand, in the order of the compares, when it did not succeed.
    """

    succeeded: bool
    revision: int
    current: tuple[KeyValue | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeResult:
    """Keys in ascending order, the revision they were read at, and whether more follow."""

    items: tuple[KeyValue, ...]
    revision: int
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent:
    """One change of one key; ``current`` is None when it was deleted."""

    key: str
    current: KeyValue | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """All changes of one revision under the watched prefix."""

    revision: int
    events: tuple[KeyEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCondition:
    """How a store is.

    Attributes:
        size_bytes: what it occupies.
        limit_bytes: what it may occupy; 0: as much as the disk has.
        disk_free_bytes: what is left on its disk; None where that is another machine's.
        alarms: what it says itself is wrong with it, such as ``NOSPACE``.
        flaw: what its version is known to do wrong to data, and what helps; empty if nothing is known.
    """

    size_bytes: int
    limit_bytes: int = 0
    disk_free_bytes: int | None = None
    alarms: tuple[str, ...] = ()
    flaw: str = ""


class StateStore(Protocol):
    """Strictly serializable store of small values."""

    @property
    def exclusive(self) -> bool:
        """Whether this process is the only one that can have the store open (so an old leader is surely dead)."""
        ...

    @property
    def capacity_bytes(self) -> int:
        """What it may occupy before it refuses writes; 0: as much as the disk has."""
        ...

    async def get(self, key: str) -> KeyValue | None:
        """The key as of now, None if absent."""
        ...

    async def range(self, prefix: str, *, limit: int = 0, start_after: str = "") -> RangeResult:
        """Keys under ``prefix`` that are greater than ``start_after``, at most ``limit`` of them (0: all)."""
        ...

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """Applies all operations at one revision if every compare holds, else nothing.

        Raises:
            StoreUnavailableError: the outcome is unknown.
            StoreFullError: nothing was written, there is no room.
            TransactionLimitError: see ``check_limits``, which every store asks first; or a lease does not exist.
        """
        ...

    def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        """Every change under ``prefix`` from ``start_revision`` on: once, in order, whole revisions; never ends.

        Raises:
            CompactedError: history at ``start_revision`` is gone, at the start or because the reader fell behind.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forgets history up to and including ``revision``; present keys stay."""
        ...

    async def lease_grant(self, ttl_s: float) -> int:
        """A new lease; when it is not kept alive for ``ttl_s`` its keys are deleted in one transaction."""
        ...

    async def lease_keep_alive(self, lease: int) -> bool:
        """Restarts the lease's time; False if it is gone."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """Ends the lease now and deletes its keys."""
        ...

    async def size_bytes(self) -> int:
        """What the store occupies."""
        ...

    async def condition(self) -> StoreCondition:
        """How it is; answered even while it takes no writes."""
        ...

    async def close(self) -> None:
        """Ends watches and leases' clocks and gives the store free for others; keys stay."""
        ...
