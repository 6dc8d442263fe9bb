"""Our transactions as etcd's messages, and etcd's keys as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.controller.store.port import Compare, KeyValue, Operation, Put, Target
from trainctl.protos.etcd import rpc_pb2


class KeySpace:
    """Our keys lie under ``prefix`` in etcd; nobody else sees it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def encode(self, key: str) -> bytes:
        """The key in etcd."""
        return (self._prefix + key).encode()

    def key_value(self, found: rpc_pb2.KeyValue) -> KeyValue:
        """A key as the port shows it."""
        return KeyValue(
            key=self.decode(found.key),
            value=found.value,
            create_revision=found.create_revision,
            mod_revision=found.mod_revision,
            version=found.version,
            lease=found.lease,
        )

    def decode(self, key: bytes) -> str:
        """Our key."""
        return key.decode().removeprefix(self._prefix)

    def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> rpc_pb2.TxnRequest:
        """If a compare does not hold, the compared keys come back."""
        return rpc_pb2.TxnRequest(
            compare=[self._compare(compare) for compare in compares],
            success=[self._operation(operation) for operation in operations],
            failure=[
                rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=self.encode(compare.key)))
                for compare in compares
            ],
        )

    def _compare(self, compare: Compare) -> rpc_pb2.Compare:
        made = rpc_pb2.Compare(key=self.encode(compare.key), target=_TARGETS[compare.target])
        setattr(made, compare.target.value, compare.expected)
        return made

    def _operation(self, operation: Operation) -> rpc_pb2.RequestOp:
        key = self.encode(operation.key)
        if isinstance(operation, Put):
            put = rpc_pb2.PutRequest(key=key, value=operation.value, lease=operation.lease)
            return rpc_pb2.RequestOp(request_put=put)
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))


_TARGETS: Mapping[Target, rpc_pb2.Compare.CompareTarget.ValueType] = {
    Target.VERSION: rpc_pb2.Compare.VERSION,
    Target.CREATE_REVISION: rpc_pb2.Compare.CREATE,
    Target.MOD_REVISION: rpc_pb2.Compare.MOD,
    Target.VALUE: rpc_pb2.Compare.VALUE,
}


def alarm_of(text: str) -> str:
    """One of the errors in a member's status: of ``memberID:1 alarm:NOSPACE`` the alarm's name, else all of it."""
    return text.rpartition("alarm:")[2].strip()


def end_of_prefix(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``; a zero byte (no end) if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"
