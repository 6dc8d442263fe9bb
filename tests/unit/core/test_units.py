"""Without it `90m` or `1 GiB` could be read as something else, or shown to people in a way that misleads them."""

import pytest

from trainctl.core.clock import ManualClock
from trainctl.core.units import format_bytes, format_count, format_duration, parse_bytes, parse_duration_s


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1h30m", "5S"])
def test_bad_durations_say_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.42s"), (12.4, "12s"), (200, "3m20s"), (7500, "2h05m"), (4 * 3600 + 3 * 86400, "3d04h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**60, "1024.0 PiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_manual_clock_never_goes_back() -> None:
    clock = ManualClock(5.0)
    clock.advance(2.5)
    assert clock.monotonic_s() == 7.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_things_are_counted_in_words() -> None:
    assert [format_count(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4096", 4096), ("7B", 7), ("2GiB", 2 << 30), ("5 MiB", 5 << 20), ("3Ki", 3072)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "2GB", "-1", "2.5GiB", "2 G i", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="2GiB"):
        parse_bytes(text)
