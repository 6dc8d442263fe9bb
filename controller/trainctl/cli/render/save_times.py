"""What a save cost: a row for each of a few ranks, a heat map for many."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.checkpoint.monitor import STAGES, WRITE, PartTimes, bottleneck
from trainctl.cli.style import Style, table
from trainctl.core.units import format_bytes

_SHADES = " ░▒▓█"
_FEW = 16
_SLOWEST = 8
_PER_LINE = 64


def lines(parts: Sequence[PartTimes], *, style: Style) -> list[str]:
    """Empty where nothing was measured, as in checkpoints of older versions.

    Args:
        parts: of all ranks.
        style: paints.
    """
    if not any(part.seconds for part in parts):
        return []
    shown = sorted(parts, key=lambda part: -part.seconds.get(WRITE, 0.0))[:_SLOWEST] if len(parts) > _FEW else parts
    heading = "Save, by rank:" if len(parts) <= _FEW else f"Save, the {_SLOWEST} slowest of {len(parts)} ranks:"
    rows = [_row(part) for part in shown]
    headers = ("RANK", "SIZE", *(stage.upper() for stage in STAGES), "RATE")
    found = table(headers, rows, right=",".join(headers))
    return [
        "",
        style.paint(heading, "bold") + f" longest {bottleneck(parts)}",
        *(f"  {line}" for line in found),
        *(_heat_map(parts, style=style) if len(parts) > _FEW else []),
    ]


def _row(part: PartTimes) -> tuple[str, ...]:
    stages = (f"{part.seconds[stage]:.3f}s" if stage in part.seconds else "-" for stage in STAGES)
    rate = f"{format_bytes(int(part.rate_bytes))}/s" if part.rate_bytes else "-"
    return str(part.rank), format_bytes(part.data_bytes), *stages, rate


def _heat_map(parts: Sequence[PartTimes], *, style: Style) -> list[str]:
    """One cell a rank, darker the longer a stage took it."""
    found = []
    for stage, meaning in STAGES.items():
        seconds = [part.seconds.get(stage, 0.0) for part in sorted(parts, key=lambda part: part.rank)]
        longest_s = max(seconds)
        cells = "".join(_SHADES[_shade(s, longest_s)] for s in seconds)
        found.append("")
        found.append(
            f"  {style.paint(stage, 'bold')}: {meaning}; {min(seconds):.3f} to {longest_s:.3f} s, a cell a rank"
        )
        for begin in range(0, len(cells), _PER_LINE):
            found.append(f"  {begin:>6}  {cells[begin : begin + _PER_LINE]}")
    return found


def _shade(seconds: float, longest_s: float) -> int:
    return min(len(_SHADES) - 1, int(len(_SHADES) * seconds / longest_s)) if longest_s > 0 else 0
