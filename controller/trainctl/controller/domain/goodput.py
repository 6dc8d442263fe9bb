"""Where a job's time went: every microsecond since submission is in exactly one bucket (control-plane reference 4.5).

Closed intervals are kept as whole microseconds, so sums are exact; the open interval is computed when somebody asks.
That way a job that simply trains changes nothing in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Bucket(StrEnum):
    """What a second was spent on."""

    QUEUED = "queued"
    PLACING = "placing"
    BOOTING = "checking"
    RENDEZVOUS = "rendezvous"
    RESTORING = "restoring"
    RECOMPUTE = "recompute"
    PRODUCTIVE = "productive"
    CHECKPOINT_STALL = "checkpoint_stall"
    DEGRADED_LOSS = "degraded_loss"
    HANG = "hang"
    DRAINING = "draining"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """The account of one job.

    Attributes:
        start_us: when it was submitted.
        since_us: start of the open interval.
        bucket: what the open interval is spent on.
        degraded: share of the open productive interval that counts as lost to running small, 0 to 1.
        closed_us: microseconds by bucket of all intervals before ``since_us``.
        lost_us: committed work thrown away by roll-backs; it lies in ``recompute``.
    """

    start_us: int
    since_us: int
    bucket: Bucket = Bucket.QUEUED
    degraded: float = 0.0
    closed_us: Mapping[str, int] = field(default_factory=dict[str, int])
    lost_us: int = 0


def microseconds(seconds: float) -> int:
    """Whole microseconds, the unit of the account."""
    return round(seconds * 1e6)


def open_account(now_s: float) -> Goodput:
    """The account of a job submitted now."""
    return Goodput(start_us=microseconds(now_s), since_us=microseconds(now_s))


def switch(account: Goodput, bucket: Bucket, now_s: float, *, degraded: float = 0.0) -> Goodput:
    """Closes the open interval and opens one for ``bucket``; nothing changes if it is already that one."""
    if account.bucket is bucket and account.degraded == degraded:
        return account
    return replace(close(account, now_s), bucket=bucket, degraded=degraded)


def close(account: Goodput, now_s: float) -> Goodput:
    """Books the open interval and goes on in the same bucket."""
    now_us = max(microseconds(now_s), account.since_us)
    return replace(account, since_us=now_us, closed_us=_booked(account, now_us))


def move(account: Goodput, source: Bucket, target: Bucket, seconds: float, now_s: float) -> Goodput:
    """Re-books time that turns out to have been spent on something else; never more than there is."""
    account = close(account, now_s)
    amount = min(max(0, microseconds(seconds)), account.closed_us.get(source, 0))
    if amount == 0:
        return account
    booked = dict(account.closed_us)
    booked[source] -= amount
    booked[target] = booked.get(target, 0) + amount
    lost = account.lost_us + (amount if target is Bucket.RECOMPUTE else 0)
    return replace(account, closed_us=booked, lost_us=lost)


def totals_s(account: Goodput, now_s: float) -> dict[str, float]:
    """Seconds by bucket up to now; they add up to the time since submission. Buckets never used are zero."""
    booked = _booked(account, max(microseconds(now_s), account.since_us))
    return {bucket.value: booked.get(bucket, 0) / 1e6 for bucket in Bucket}


def total_us(account: Goodput, now_s: float) -> int:
    """Microseconds in all buckets up to now: exactly the time since submission."""
    return sum(_booked(account, max(microseconds(now_s), account.since_us)).values())


def ettr(account: Goodput, now_s: float) -> float:
    """Effective training time ratio: productive seconds over all seconds not queued and not paused; 0 before any."""
    seconds = totals_s(account, now_s)
    running = sum(seconds.values()) - seconds[Bucket.QUEUED] - seconds[Bucket.PAUSED]
    return seconds[Bucket.PRODUCTIVE] / running if running > 0 else 0.0


def _booked(account: Goodput, now_us: int) -> dict[str, int]:
    booked = dict(account.closed_us)
    open_us = now_us - account.since_us
    lost_us = round(open_us * account.degraded) if account.bucket is Bucket.PRODUCTIVE else 0
    for bucket, amount in ((account.bucket, open_us - lost_us), (Bucket.DEGRADED_LOSS, lost_us)):
        if amount:
            booked[bucket.value] = booked.get(bucket.value, 0) + amount
    return booked
