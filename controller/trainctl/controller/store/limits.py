"""What no store takes in one transaction: checked before anything is sent, alike for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.controller.store.port import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES,
    Compare,
    Operation,
    Put,
    TransactionLimitError,
)


def check_limits(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """Sees that a transaction is one that every store accepts.

    Raises:
        TransactionLimitError: too many or too large operations, or a key occurs twice.
    """
    count = len(compares) + len(operations)
    if count > MAX_OPERATIONS:
        raise TransactionLimitError(
            f"expected at most {MAX_OPERATIONS} compares and operations in a transaction, found {count}"
        )
    keys = [operation.key for operation in operations]
    if len(set(keys)) != len(keys):
        raise TransactionLimitError(f"a key occurs twice in one transaction: {', '.join(sorted(keys))}")
    sizes = {operation.key: len(operation.value) for operation in operations if isinstance(operation, Put)}
    for key, size in sizes.items():
        if size > MAX_VALUE_BYTES:
            raise TransactionLimitError(f"value of {key}: expected at most {MAX_VALUE_BYTES} bytes, found {size}")
    total = sum(sizes.values())
    if total > MAX_TRANSACTION_BYTES:
        raise TransactionLimitError(
            f"expected at most {MAX_TRANSACTION_BYTES} bytes in a transaction, found {total} in {len(sizes)} values"
        )
