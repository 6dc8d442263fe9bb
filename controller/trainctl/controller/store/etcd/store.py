"""``StateStore`` in etcd v3."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import grpc

from trainctl.controller.store.etcd.address import EtcdAddress
from trainctl.controller.store.etcd.connection import EtcdConnection, Member, Metadata
from trainctl.controller.store.etcd.failures import is_compacted, is_gone_lease
from trainctl.controller.store.etcd.flaws import flaw_of
from trainctl.controller.store.etcd.messages import KeySpace, alarm_of, end_of_prefix
from trainctl.controller.store.etcd.silence import explain_silence
from trainctl.controller.store.etcd.watch import watch
from trainctl.controller.store.limits import check_limits
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    KeyValue,
    Operation,
    RangeResult,
    StoreClosedError,
    StoreCondition,
    StoreUnavailableError,
    TxnResult,
    WatchBatch,
)
from trainctl.core.errors import TrainctlError
from trainctl.protos.etcd import rpc_pb2

_log = logging.getLogger(__name__)
R = TypeVar("R")
OnRequest = Callable[[str, float], None]

PAGE_KEYS = 200
"""Keys in one answer: all of the largest values still fit a message."""
_SNAPSHOT_TRIES = 5
_LEAST_TTL_S = 1


class EtcdStore:
    """Implements ``StateStore``; made by ``open``. Any number of processes share one etcd.

    Writes are never repeated by themselves: one that got no answer may have been carried out.
    """

    exclusive = False

    def __init__(self, connection: EtcdConnection, on_request: OnRequest | None) -> None:
        self._connection = connection
        self._keys = KeySpace(connection.address.prefix)
        self._on_request = on_request
        self._closed = False
        self.capacity_bytes = connection.address.quota_bytes

    @classmethod
    async def open(cls, address: EtcdAddress, *, on_request: OnRequest | None = None) -> EtcdStore:
        """Connects, and asks each member until one answers.

        Args:
            address: of the cluster.
            on_request: told about each request: its name and its seconds.

        Raises:
            StoreUnavailableError: no member answered.
            PermissionDeniedError: a file cannot be read, or etcd does not let this user in.
        """
        store = cls(EtcdConnection(address), on_request)
        try:
            await store.get("/")
        except StoreUnavailableError as error:
            await store.close()
            raise await explain_silence(address) or error from error
        except BaseException:
            await store.close()
            raise
        await store._warn_of_flaw()
        return store

    async def _warn_of_flaw(self) -> None:
        with contextlib.suppress(TrainctlError):  # not every user may ask for it
            flaw = (await self.condition()).flaw
            if flaw:
                _log.warning("%s: %s", self._connection.address, flaw)

    async def get(self, key: str) -> KeyValue | None:
        """See ``StateStore.get``."""
        answer = await self._range("get", rpc_pb2.RangeRequest(key=self._keys.encode(key)))
        return self._keys.key_value(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str, *, limit: int = 0, start_after: str = "") -> RangeResult:
        """See ``StateStore.range``."""
        for _ in itertools.repeat(None, _SNAPSHOT_TRIES):
            try:
                return await self._snapshot(prefix, limit, start_after)
            except CompactedError:  # between two pages: the snapshot that the first was of is gone
                continue
        raise StoreUnavailableError(f"reading {prefix}: history was compacted under it {_SNAPSHOT_TRIES} times")

    async def _snapshot(self, prefix: str, limit: int, start_after: str) -> RangeResult:
        """All pages as of the first one's revision."""
        first = self._keys.encode(prefix)
        end = end_of_prefix(first)
        start = max(first, self._keys.encode(start_after) + b"\0") if start_after else first
        items: list[KeyValue] = []
        revision = 0
        while True:
            size = min(PAGE_KEYS, limit - len(items)) if limit else PAGE_KEYS
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=size, revision=revision)
            answer = await self._range("range", request)
            revision = revision or answer.header.revision
            items += [self._keys.key_value(found) for found in answer.kvs]
            if not answer.more or len(items) == limit:
                return RangeResult(items=tuple(items), revision=revision, more=answer.more)
            start = answer.kvs[-1].key + b"\0"

    async def _range(self, what: str, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> rpc_pb2.RangeResponse:
            return await member.kv.Range(request, metadata=metadata, timeout=timeout_s)

        return await self._call(attempt, what)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """See ``StateStore.txn``."""
        check_limits(compares, operations)
        request = self._keys.txn(compares, operations)

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> rpc_pb2.TxnResponse:
            return await member.kv.Txn(request, metadata=metadata, timeout=timeout_s)

        answer = await self._call(attempt, "txn", again=False)
        found = [response.response_range.kvs for response in answer.responses] if not answer.succeeded else []
        return TxnResult(
            succeeded=answer.succeeded,
            revision=answer.header.revision,
            current=tuple(self._keys.key_value(kvs[0]) if kvs else None for kvs in found),
        )

    def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        """See ``StateStore.watch``."""
        return watch(self._connection, self._keys, prefix, start_revision)

    async def compact(self, revision: int) -> None:
        """See ``StateStore.compact``."""
        newest = (await self._range("get", rpc_pb2.RangeRequest(key=self._keys.encode("/")))).header.revision
        request = rpc_pb2.CompactionRequest(revision=min(revision, newest))

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> None:
            try:
                await member.kv.Compact(request, metadata=metadata, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                if not is_compacted(error):  # as it was to be
                    raise

        await self._call(attempt, "compact")

    async def lease_grant(self, ttl_s: float) -> int:
        """See ``StateStore.lease_grant``; etcd counts whole seconds."""
        request = rpc_pb2.LeaseGrantRequest(TTL=max(_LEAST_TTL_S, math.ceil(ttl_s)))

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> rpc_pb2.LeaseGrantResponse:
            return await member.lease.LeaseGrant(request, metadata=metadata, timeout=timeout_s)

        return (await self._call(attempt, "lease_grant")).ID

    async def lease_keep_alive(self, lease: int) -> bool:
        """See ``StateStore.lease_keep_alive``."""

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> bool:
            call = member.lease.LeaseKeepAlive(metadata=metadata, timeout=timeout_s)
            try:
                await call.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                answer = await call.read()
                if not isinstance(answer, rpc_pb2.LeaseKeepAliveResponse):
                    raise StoreUnavailableError(f"etcd {member.name}: keep-alive: the stream ended without an answer")
                return answer.TTL > 0
            finally:
                call.cancel()

        return await self._call(attempt, "lease_keep_alive")

    async def lease_revoke(self, lease: int) -> None:
        """See ``StateStore.lease_revoke``."""
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> None:
            try:
                await member.lease.LeaseRevoke(request, metadata=metadata, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                if not is_gone_lease(error):
                    raise

        await self._call(attempt, "lease_revoke")

    async def size_bytes(self) -> int:
        """See ``StateStore.size_bytes``: of the whole etcd, as its quota counts it."""
        return (await self._status()).dbSize

    async def condition(self) -> StoreCondition:
        """See ``StateStore.condition``; from 3.6 on with etcd's own word for its quota."""
        status = await self._status()
        alarms = tuple(sorted({alarm_of(text) for text in status.errors}))
        return StoreCondition(
            size_bytes=status.dbSize,
            limit_bytes=status.dbSizeQuota or self.capacity_bytes,
            alarms=alarms,
            flaw=flaw_of(status.version),
        )

    async def _status(self) -> rpc_pb2.StatusResponse:
        """One member's own word: it answers without a majority, too."""

        async def attempt(member: Member, metadata: Metadata, timeout_s: float) -> rpc_pb2.StatusResponse:
            return await member.maintenance.Status(rpc_pb2.StatusRequest(), metadata=metadata, timeout=timeout_s)

        return await self._call(attempt, "status")

    async def close(self) -> None:
        """See ``StateStore.close``."""
        self._closed = True
        await self._connection.close()

    async def _call(
        self, attempt: Callable[[Member, Metadata, float], Awaitable[R]], what: str, *, again: bool = True
    ) -> R:
        if self._closed:
            raise StoreClosedError("the state store is closed")
        began_s = time.monotonic()
        try:
            return await self._connection.call(attempt, what, again=again)
        finally:
            if self._on_request is not None:
                self._on_request(what, time.monotonic() - began_s)
