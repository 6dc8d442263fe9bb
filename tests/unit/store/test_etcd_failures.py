"""What people are told of etcd's refusals.

Without it people would read codes of gRPC when their etcd is full.
"""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from trainctl.controller.store.etcd.address import parse_address
from trainctl.controller.store.etcd.failures import failure_of


@pytest.mark.parametrize(
    ("code", "details", "kind", "words"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", "USAGE", "expected etcd .* found another gRPC server"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "mvcc: database space exceeded", "STORE_FULL", "the store is full"),
        (grpc.StatusCode.PERMISSION_DENIED, "denied", "PERMISSION_DENIED", "may not do this"),
        (grpc.StatusCode.UNAVAILABLE, "refused", "STORE_UNAVAILABLE", "no answer: refused"),
    ],
)
def test_each_has_a_code_and_says_where(code: grpc.StatusCode, details: str, kind: str, words: str) -> None:
    error = aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details=details)
    found = failure_of(error, what="get", member="h:1", address=parse_address("etcd://h:1/t"))
    assert found.code == kind
    with pytest.raises(type(found), match=f"etcd h:1: get: .*{words}"):
        raise found
