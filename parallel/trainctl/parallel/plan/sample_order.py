"""The order of the samples: a keyed permutation per epoch that is computed, never stored.

Position ``p`` of the stream is sample ``permute(p % N)`` of epoch ``p // N``. The permutation is a Feistel network over
the next power of four, with cycle walking back into ``[0, N)``: exact for every N, and any position costs the same.

Source: Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002), section 4 (cycle walking).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainctl.core.errors import DataError
from trainctl.parallel.plan.randomness import GOLDEN_GAMMA, MASK_64, MULTIPLIER_1, MULTIPLIER_2, derive_seed

_ROUND_KEYS = tuple(number << 56 for number in range(6))


class Order(Protocol):
    """An endless stream of samples: a pure function of the position, so that a cursor is all there is to remember."""

    def ids(self, position: int, count: int) -> tuple[int, ...]:
        """The samples at ``position`` to ``position + count - 1``."""
        ...


def permute(index: int, size: int, key: int) -> int:
    """Where the permutation of ``range(size)`` named by ``key`` sends ``index``."""
    half_bits = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for round_key in _ROUND_KEYS:
            mixed = ((key ^ round_key ^ right) + GOLDEN_GAMMA) & MASK_64  # mix64, written out: this is the inner loop
            mixed = ((mixed ^ (mixed >> 30)) * MULTIPLIER_1) & MASK_64
            mixed = ((mixed ^ (mixed >> 27)) * MULTIPLIER_2) & MASK_64
            left, right = right, left ^ ((mixed ^ (mixed >> 31)) & mask)
        index = (left << half_bits) | right
        if index < size:  # outside: walk on along the cycle, which must come back
            return index


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The endless stream of samples of one run.

    Attributes:
        num_samples: samples in an epoch.
        seed: of the run.
    """

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise DataError(
                f"expected at least one sample to train on, found {self.num_samples}",
                hint="num_samples is the number of samples of the data set: is it empty?",
            )

    def ids(self, position: int, count: int) -> tuple[int, ...]:
        """The samples at ``position`` to ``position + count - 1`` of the stream; positions run through the epochs."""
        ids: list[int] = []
        for epoch in range(position // self.num_samples, (position + count - 1) // self.num_samples + 1):
            start = max(position - epoch * self.num_samples, 0)
            stop = min(position + count - epoch * self.num_samples, self.num_samples)
            key = derive_seed(self.seed, epoch)
            ids.extend(permute(index, self.num_samples, key) for index in range(start, stop))
        return tuple(ids)
