"""An order-free digest of sample ids: ranks add theirs up, and the sum tells whether each one counted exactly once."""

from __future__ import annotations

from collections.abc import Iterable

from trainctl.parallel.plan.randomness import MASK_64, mix64


def sample_digest(sample_ids: Iterable[int]) -> int:
    """Sum modulo 2**64 of the mixed ids: of a union it is the sum of the parts' digests, whatever the order."""
    return add_digests(mix64(sample_id) for sample_id in sample_ids)


def add_digests(digests: Iterable[int]) -> int:
    """The digest of the union of what the ``digests`` stand for."""
    return sum(digests) & MASK_64
