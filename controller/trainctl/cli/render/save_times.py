"""What a save or a load cost: a row for each of a few ranks, a heat map for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.monitor import LOAD_STAGES, STAGES, STALL, PartTimes, bottleneck, rate_bytes
from trainctl.cli.terminal.style import Style, table
from trainctl.core.units import format_bytes, format_count

_SHADES = " ░▒▓█"
_FEW = 16
_SLOWEST = 8
_PER_LINE = 64
_SEEN_S = 0.0005
"""A stage that took nobody so long is not shown."""


@dataclass(frozen=True, slots=True)
class _Table:
    """What is shown of some ranks.

    Attributes:
        parts: of those that are known.
        ranks: how many took part.
        stages: that took some time, with what they mean.
    """

    parts: Sequence[PartTimes]
    ranks: int
    stages: Mapping[str, str]

    @property
    def shown(self) -> Sequence[PartTimes]:
        """All of a few, of many the slowest."""
        return sorted(self.parts, key=lambda part: -_own_s(part))[:_SLOWEST] if self.ranks > _FEW else self.parts

    @property
    def whose(self) -> str:
        """In the heading."""
        return f"the {len(self.shown)} slowest of {self.ranks} ranks" if self.ranks > _FEW else "by rank"

    def rows(self) -> list[str]:
        """Under their headers."""
        headers = ("RANK", "SIZE", *(stage.upper() for stage in self.stages), "RATE")
        return table(headers, [self._row(part) for part in self.shown], right=",".join(headers))

    def _row(self, part: PartTimes) -> tuple[str, ...]:
        stages = (f"{part.seconds[stage]:.3f}s" if stage in part.seconds else "-" for stage in self.stages)
        rate = f"{format_bytes(int(rate_bytes(part)))}/s" if rate_bytes(part) else "-"
        return str(part.rank), format_bytes(part.data_bytes), *stages, rate


def lines(parts: Sequence[PartTimes], *, style: Style, uri: str = "") -> list[str]:
    """Of a save; empty where nothing was measured, as in checkpoints of older versions.

    Args:
        parts: of all ranks.
        style: paints.
        uri: of the checkpoint, to name the storage.
    """
    if not any(part.seconds for part in parts):
        return []
    found = _Table(parts, len(parts), _stages(parts, STAGES))
    return [
        "",
        style.paint(f"Save, {found.whose}:", "bold") + f" longest {bottleneck(parts, uri=uri)}",
        *(f"  {line}" for line in found.rows()),
        *(_heat_map(found, style=style) if len(parts) > _FEW else []),
    ]


def load_lines(
    parts: Sequence[PartTimes],
    *,
    generation: int,
    ranks: int,
    longest: str,
    seconds: float,
    style: Style,
    healed_reads: int = 0,
) -> list[str]:
    """Of a load by the ranks of a generation, of which at least the slowest are known.

    Args:
        parts: of those.
        generation: whose ranks.
        ranks: how many there were.
        longest: what it waited for longest, as its ranks found.
        seconds: until the last rank had it.
        style: paints.
        healed_reads: blocks and manifests that came with wrong bytes and were right when they were read again.
    """
    found = _Table(parts, ranks, _stages(parts, LOAD_STAGES))
    said = f" {seconds:.2f} s" + (f", longest {longest}" if longest else "")
    return [
        "",
        style.paint(f"Load by generation {generation}, {found.whose}:", "bold") + said,
        *(f"  {line}" for line in (found.rows() if parts else [])),
        *([f"  {_healed(parts, healed_reads)}"] if healed_reads else []),
    ]


def _healed(parts: Sequence[PartTimes], healed_reads: int) -> str:
    ranks = ", ".join(f"{part.healed_reads} on rank {part.rank}" for part in parts if part.healed_reads)
    whose = f" ({ranks})" if ranks else ""
    return f"{format_count(healed_reads, 'read')} came with wrong bytes and right when repeated{whose}"


def _stages(parts: Sequence[PartTimes], known: Mapping[str, str]) -> Mapping[str, str]:
    return {
        stage: meaning
        for stage, meaning in known.items()
        if any(part.seconds.get(stage, 0.0) >= _SEEN_S for part in parts)
    }


def _own_s(part: PartTimes) -> float:
    return sum(seconds for stage, seconds in part.seconds.items() if stage != STALL)


def _heat_map(found: _Table, *, style: Style) -> list[str]:
    """One cell a rank, darker the longer a stage took it."""
    drawn: list[str] = []
    for stage, meaning in found.stages.items():
        seconds = [part.seconds.get(stage, 0.0) for part in sorted(found.parts, key=lambda part: part.rank)]
        longest_s = max(seconds)
        cells = "".join(_SHADES[_shade(s, longest_s)] for s in seconds)
        drawn.append("")
        drawn.append(
            f"  {style.paint(stage, 'bold')}: {meaning}; {min(seconds):.3f} to {longest_s:.3f} s, a cell a rank"
        )
        for begin in range(0, len(cells), _PER_LINE):
            drawn.append(f"  {begin:>6}  {cells[begin : begin + _PER_LINE]}")
    return drawn


def _shade(seconds: float, longest_s: float) -> int:
    return min(len(_SHADES) - 1, int(len(_SHADES) * seconds / longest_s)) if longest_s > 0 else 0
