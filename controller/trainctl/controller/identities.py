"""Fresh identities, unique over all controller lives."""

from __future__ import annotations

import itertools
from random import Random

_INCARNATIONS_PER_EPOCH = 10**9


class LeaderIds:
    """Implements the core's ``IdSource``: the epoch rises with each life, so none comes twice.

    Where the store was replaced by an older copy, an epoch may come twice: so they begin anywhere in it.
    """

    def __init__(self, epoch: int, chance: Random) -> None:
        self._chance = chance
        begin = 1 + chance.randrange(_INCARNATIONS_PER_EPOCH // 2)
        self._counter = itertools.count(epoch * _INCARNATIONS_PER_EPOCH + begin)

    def incarnation(self) -> int:
        """A number greater than every one given before."""
        return next(self._counter)

    def nonce(self) -> str:
        """Ten random hexadecimal digits."""
        return self._chance.randbytes(5).hex()


def new_uid(now_s: float, chance: Random) -> str:
    """A UUID version 7: sorts by time. Source: RFC 9562, 5.7."""
    stamp = int(now_s * 1000).to_bytes(6, "big")
    noise = bytearray(chance.randbytes(10))
    noise[0] = 0x70 | (noise[0] & 0x0F)
    noise[2] = 0x80 | (noise[2] & 0x3F)
    text = (stamp + bytes(noise)).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
