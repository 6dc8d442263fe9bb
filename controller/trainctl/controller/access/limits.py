"""How much is too much: token buckets and counts, as pure functions of a state and a time.

Source of the bucket: J. Turner, "New Directions in Communications", IEEE Communications Magazine 24(10), 1986.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from trainctl.core.errors import UnavailableError

_ROUNDING = 1e-9
"""Whoever comes back exactly when told is let in."""


class RateLimitedError(UnavailableError):
    """The caller asks too often, or holds too many streams; says when to try again."""

    code = "RATE_LIMITED"


class TooManySessionsError(UnavailableError):
    """More agents come at once than the controller takes in; says when to try again."""

    code = "TOO_MANY_SESSIONS"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, so many at once."""

    per_s: float
    burst: float

    def __str__(self) -> str:
        return f"{self.per_s:g} a second, {self.burst:g} at once"


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left at a time."""

    left: float
    at_s: float


def take(bucket: Bucket | None, rate: Rate, now_s: float) -> tuple[Bucket, float]:
    """One more at ``now_s``: the bucket then, and for how long it has to wait; 0: not at all.

    Args:
        bucket: as it was left; None: nobody took anything yet.
        rate: how fast it fills, and how much it holds.
        now_s: of a clock that does not go back; if it does, nothing is lost and nothing is won.
    """
    left = rate.burst
    if bucket is not None:
        left = min(rate.burst, bucket.left + max(0.0, now_s - bucket.at_s) * rate.per_s)
    if left >= 1.0 - _ROUNDING:
        return Bucket(max(0.0, left - 1.0), now_s), 0.0
    return Bucket(left, now_s), (1.0 - left) / rate.per_s


class Buckets:
    """A bucket for each key; those that were not used for longest are forgotten first, so that memory is bounded.

    Args:
        rate: of each.
        most: how many are remembered; whoever is forgotten begins with a full one.
    """

    def __init__(self, rate: Rate, *, most: int = 10_000) -> None:
        self.rate = rate
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now_s: float) -> float:
        """See ``take``: seconds to wait."""
        self._buckets[key], wait_s = take(self._buckets.get(key), self.rate, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator may set.

    Attributes:
        calls: of each caller.
        streams: that each caller may hold open.
        all_streams: that all callers together may.
        strangers: calls of each host that show no good token.
        open_calls: calls of each host that need none, such as those of machines that join.
        sessions: new streams of agents.
    """

    calls: Rate = Rate(50, 100)
    streams: int = 64
    all_streams: int = 2048
    strangers: Rate = Rate(5, 20)
    open_calls: Rate = Rate(50, 200)
    sessions: Rate = Rate(500, 500)

    @property
    def local_calls(self) -> Rate:
        """Of whoever has the controller's own token: its owner's scripts, and those of the machine."""
        return Rate(10 * self.calls.per_s, 10 * self.calls.burst)
