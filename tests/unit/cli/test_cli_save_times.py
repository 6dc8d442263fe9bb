"""What a save cost, for people.

Without it nobody could see what makes saves slow.
"""

from __future__ import annotations

from trainctl.checkpoint.monitor import PartTimes
from trainctl.cli.render.save_times import lines, load_lines
from trainctl.cli.terminal.style import Style

PLAIN = Style(enabled=False)


def test_a_row_for_each_of_a_few_ranks() -> None:
    parts = [
        PartTimes(0, 1 << 30, {"stall": 0.01, "copy": 0.25, "write": 1.0}),
        PartTimes(1, 1 << 20, {"write": 4.0}),
    ]
    assert lines(parts, style=PLAIN) == [
        "",
        "Save, by rank: longest write of rank 1: 4.00 s (256.0 KiB/s), the median rank 2.50 s",
        "  RANK     SIZE   STALL    COPY   WRITE         RATE",
        "     0  1.0 GiB  0.010s  0.250s  1.000s    1.0 GiB/s",
        "     1  1.0 MiB       -       -  4.000s  256.0 KiB/s",
    ]


def test_many_ranks_are_a_heat_map_and_the_slowest() -> None:
    parts = [PartTimes(rank, 1 << 30, {"write": 40.0 if rank == 70 else 10.0 + rank / 100}) for rank in range(100)]
    found = lines(parts, style=PLAIN)
    assert found[1].startswith("Save, the 8 slowest of 100 ranks: longest write of rank 70: 40.00 s")
    assert [line.split()[0] for line in found[3:11]] == ["70", "99", "98", "97", "96", "95", "94", "93"]
    begin = next(index for index, line in enumerate(found) if line.strip().startswith("write:"))
    assert found[begin].strip() == "write: files written, or uploaded; 10.000 to 40.000 s, a cell a rank"
    assert found[begin + 1] == "       0  " + 64 * "░"
    assert found[begin + 2] == "      64  " + 6 * "░" + "█" + 29 * "░"


def test_nothing_of_a_checkpoint_that_was_not_measured() -> None:
    assert lines([PartTimes(0, 1 << 30, {})], style=PLAIN) == []


def test_stages_that_took_nobody_any_time_are_left_out() -> None:
    parts = [
        PartTimes(
            rank, 1 << 30, {"stall": 0.2, "memory": 0.0, "fence": 0.0001, "checksum": 0.1, "write": 1.0, "sync": 3.0}
        )
        for rank in range(2)
    ]
    assert lines(parts, style=PLAIN, uri="s3://b/c") == [
        "",
        "Save, by rank: longest sync of rank 0 on s3: 3.00 s (256.0 MiB/s), all ranks alike",
        "  RANK     SIZE   STALL  CHECKSUM   WRITE    SYNC         RATE",
        "     0  1.0 GiB  0.200s    0.100s  1.000s  3.000s  256.0 MiB/s",
        "     1  1.0 GiB  0.200s    0.100s  1.000s  3.000s  256.0 MiB/s",
    ]


def test_a_load_by_rank() -> None:
    parts = [
        PartTimes(0, 1 << 30, {"plan": 0.05, "read": 1.0, "verify": 0.25, "copy": 0.0}, 1 << 30),
        PartTimes(1, 1 << 30, {"plan": 0.05, "read": 4.0, "verify": 0.25, "copy": 0.0}, 1 << 30),
    ]
    said = "read of rank 1 on file: 4.00 s (256.0 MiB/s), the median rank 2.50 s"
    found = load_lines(parts, generation=3, ranks=2, longest=said, seconds=4.5, style=PLAIN)
    assert found == [
        "",
        f"Load by generation 3, by rank: 4.50 s, longest {said}",
        "  RANK     SIZE    PLAN    READ  VERIFY         RATE",
        "     0  1.0 GiB  0.050s  1.000s  0.250s    1.0 GiB/s",
        "     1  1.0 GiB  0.050s  4.000s  0.250s  256.0 MiB/s",
    ]
    many = load_lines(parts, generation=3, ranks=100, longest=said, seconds=4.5, style=PLAIN)
    assert many[1].startswith("Load by generation 3, the 2 slowest of 100 ranks: ")
    assert many[3].split()[0] == "1"
