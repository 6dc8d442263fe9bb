"""What held a save up, in words.

Without it people would know that a save was slow, but not by what.
"""

from __future__ import annotations

import pytest

from trainctl.checkpoint.monitor import PartTimes, bottleneck, imbalance, in_wall_time, rate_bytes


def part(rank: int, **seconds: float) -> PartTimes:
    return PartTimes(rank, 1 << 30, seconds)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], ""),
        ([part(0)], ""),
        ([part(0, copy=0.5, write=2.0, stall=0.01)], "write of rank 0: 2.00 s (512.0 MiB/s)"),
        (
            [part(0, write=2.0), part(1, write=2.5), part(2, write=2.1)],
            "write of rank 1: 2.50 s (409.6 MiB/s), all ranks alike",
        ),
        (
            [part(0, write=2.0), part(1, write=40.0), part(2, write=2.0)],
            "write of rank 1: 40.00 s (25.6 MiB/s), the median rank 2.00 s",
        ),
        (
            [part(0, write=2.0, copy=0.1), part(1, write=2.0, copy=9.0), part(2, write=2.0, copy=0.1)],
            "copy of rank 1: 9.00 s, the median rank 0.10 s",
        ),
        ([part(1, write=3.0), part(0, write=3.0)], "write of rank 0: 3.00 s (341.3 MiB/s), all ranks alike"),
        ([part(0, stall=9.0, fence=8.0, write=2.0)], "fence of rank 0: 8.00 s"),
        ([part(0, checksum=0.1, write=1.0, sync=3.0)], "sync of rank 0: 3.00 s (256.0 MiB/s)"),
    ],
)
def test_the_longest_rank_and_stage(parts: list[PartTimes], expected: str) -> None:
    assert bottleneck(parts) == expected


@pytest.mark.parametrize(
    ("stage", "uri", "expected"),
    [
        ("read", "s3://bucket/step-1/a", "read of rank 0 on s3: 2.00 s (1.0 GiB/s)"),
        ("write", "/shared/step-1/a", "write of rank 0 on file: 2.00 s (512.0 MiB/s)"),
        ("verify", "s3://bucket/step-1/a", "verify of rank 0: 2.00 s"),
    ],
)
def test_the_storage_is_named_where_it_is_the_reason(stage: str, uri: str, expected: str) -> None:
    found = PartTimes(0, 1 << 30, {stage: 2.0}, 2 << 30 if stage == "read" else 0)
    assert bottleneck([found], uri=uri) == expected


def test_rates_are_of_the_storage_alone() -> None:
    assert rate_bytes(part(0, copy=9.0, checksum=9.0, write=1.0, sync=1.0)) == 1 << 29
    assert rate_bytes(part(0, copy=9.0)) == 0
    assert rate_bytes(PartTimes(0, 10, {"read": 2.0}, 40)) == 20


def test_imbalance_is_the_largest_part_against_the_mean() -> None:
    assert imbalance([PartTimes(rank, size, {}) for rank, size in enumerate([100, 100, 400])]) == 2.0
    assert imbalance([PartTimes(0, 7, {})]) == 1.0
    assert imbalance([PartTimes(0, 0, {})]) == imbalance([]) == 0.0


def test_seconds_of_threads_become_shares_of_the_time_that_passed() -> None:
    assert in_wall_time({"read": 6.0, "verify": 2.0}, 2.0) == {"read": 1.5, "verify": 0.5}
    assert in_wall_time({}, 2.0) == {}
