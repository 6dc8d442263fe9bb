"""What held a save up, in words."""

from __future__ import annotations

import pytest

from trainctl.checkpoint.monitor import PartTimes, bottleneck


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
    ],
)
def test_the_longest_rank_and_stage(parts: list[PartTimes], expected: str) -> None:
    assert bottleneck(parts) == expected
