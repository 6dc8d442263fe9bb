"""Seeds as a function of where they are used, so that a replay of the same work draws the same numbers.

Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), section 5.
"""

from __future__ import annotations

MASK_64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB


def mix64(value: int) -> int:
    """A bijection of 64-bit integers in which every input bit flips about half of the output bits."""
    value = (value + GOLDEN_GAMMA) & MASK_64
    value = ((value ^ (value >> 30)) * MULTIPLIER_1) & MASK_64
    value = ((value ^ (value >> 27)) * MULTIPLIER_2) & MASK_64
    return value ^ (value >> 31)


def derive_seed(seed: int, *place: int) -> int:
    """A seed in ``[0, 2**63)`` for a place such as ``(step, micro_batch)`` or ``(step, micro_batch, layer)``."""
    state = mix64(seed & MASK_64)
    for coordinate in place:
        state = mix64(state ^ (coordinate & MASK_64))
    return state >> 1
