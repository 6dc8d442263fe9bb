"""What etcd's refusals and silences mean, for a person and for the caller."""

from __future__ import annotations

import grpc

from trainctl.controller.store.etcd.address import EtcdAddress
from trainctl.controller.store.port import (
    CompactedError,
    StoreFullError,
    StoreUnavailableError,
    TransactionLimitError,
)
from trainctl.core.errors import PermissionDeniedError, TrainctlError, UsageError

_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
    }
)
_FULL = "database space exceeded"


def is_stale_token(error: grpc.aio.AioRpcError) -> bool:
    """The token has expired, or the member that made it was restarted: another one helps."""
    text = error.details() or ""
    return "invalid auth token" in text or "revision of auth store is old" in text


def is_gone_lease(error: grpc.aio.AioRpcError) -> bool:
    """The lease is not there any more."""
    return error.code() is grpc.StatusCode.NOT_FOUND and "lease" in (error.details() or "")


def is_compacted(error: grpc.aio.AioRpcError) -> bool:
    """The wanted revision is history that is gone."""
    return error.code() is grpc.StatusCode.OUT_OF_RANGE and "compacted" in (error.details() or "")


def failure_of(error: grpc.aio.AioRpcError, *, what: str, member: str, address: EtcdAddress) -> TrainctlError:
    """Our error for etcd's."""
    code, text = error.code(), error.details() or ""
    where = f"etcd {member}: {what}"
    if _FULL in text:
        hint = "compact and defragment etcd, raise its quota (--quota-backend-bytes), then disarm its NOSPACE alarm"
        return StoreFullError(f"{where}: the store is full", hint=hint)
    if is_compacted(error):
        return CompactedError(0, 0)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        who = f"user {address.user}" if address.user else "the user that the certificate names"
        hint = f"grant {who} read and write access to the prefix {address.prefix or '/'}"
        return PermissionDeniedError(f"{where}: {who} may not do this: {text}", hint=hint)
    if "authentication failed" in text or "user name is empty" in text:
        return PermissionDeniedError(
            f"{where}: {text}", hint="check user and password-file in the store's address, or the certificate's name"
        )
    if "authentication is not enabled" in text:
        hint = "leave user and password-file out of the store's address, or enable it: etcdctl auth enable"
        return UsageError(f"{where}: this etcd has no authentication", hint=hint)
    if is_gone_lease(error):
        return TransactionLimitError(f"{where}: the lease does not exist or has expired")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        hint = "name the client port of etcd (2379 unless it was told otherwise), not that of a controller"
        return UsageError(f"{where}: expected etcd (API v3) at this address, found another gRPC server", hint=hint)
    if code in _AWAY or code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return StoreUnavailableError(f"{where}: no answer: {_silence(error, address)}", hint=_silence_hint(address))
    return TransactionLimitError(f"{where}: refused: {text} ({code.name})")


def _silence(error: grpc.aio.AioRpcError, address: EtcdAddress) -> str:
    text = (error.details() or error.code().name).strip()
    return text if len(text) < 300 else text[:300] + "..."


def _silence_hint(address: EtcdAddress) -> str:
    if not address.tls:
        return "is etcd there, and does it want TLS? then name ca (and cert, key) in the store's address"
    if address.cert is None:
        return "an etcd that wants client certificates only falls silent without one: name cert and key, too"
    return "is etcd there, and do both sides trust the other's certificate? see ca, cert, key and server-name"
