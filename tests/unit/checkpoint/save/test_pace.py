"""A write beside training rests as long as it takes to leave the processor to others, and no longer.

Without it saving could slow training down, or take far longer than it has to.
"""

from __future__ import annotations

import pytest

from trainctl.checkpoint.snapshot.pace import LONGEST_FIRST_REST_S, SHARE, first_rest_s, rest_s


@pytest.mark.parametrize(
    ("processor_s", "took_s", "processors", "expected_s"),
    [
        (0.004, 0.05, 1, 0.05),  # its share is two twenty-fifths: twice as long makes it one
        (0.01, 0.01, 1, 0.015),  # never longer than that for what it worked
        (0.001, 1.0, 1, 0.0),  # a slow disk needs no processor, and nobody waits for it longer
        (0.01, 0.01, 25, 0.0),  # one of twenty-five
        (0.006, 0.05, 2, 0.025),  # 6 ms are two twenty-fifths of 75
        (0.0, 0.0, 1, 0.0),
    ],
)
def test_the_rest_after_some_work(processor_s: float, took_s: float, processors: int, expected_s: float) -> None:
    assert rest_s(processor_s, took_s, processors) == pytest.approx(expected_s)


def test_with_its_rest_the_work_has_its_share() -> None:
    processor_s, took_s = 0.003, 0.05
    assert processor_s / (took_s + rest_s(processor_s, took_s, 1)) == pytest.approx(SHARE)


def test_before_the_first_byte_it_rests_as_long_as_others_may_still_copy() -> None:
    assert first_rest_s(0) == 0.0
    assert first_rest_s(400_000_000) == pytest.approx(0.1)
    assert first_rest_s(1 << 40) == LONGEST_FIRST_REST_S
