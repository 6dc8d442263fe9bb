"""Recoveries as people read them: what failed, how it was met, where the seconds went, what was copied from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.cli.terminal.style import Style
from trainctl.core.records.generation import Rung
from trainctl.core.records.part import SNAPSHOT, storage_kind
from trainctl.core.units import format_bytes, format_count
from trainctl.protos.v1.job_pb2 import Event, Load, Recovery

PHASES = ("detect", "stop", "boot", "decide", "rendezvous", "restore", "first_step")
"""Phases of a recovery in the order in which they happen; others come behind them."""
_BAR_CELLS = 40
_WASTEFUL = 1.02
"""Bytes read for each that is wanted, from which on it is worth a word."""


def ordered_phases(recovery: Recovery) -> list[tuple[str, float]]:
    """Name and seconds of each phase in order, without the total."""
    known = [name for name in PHASES if name in recovery.phases_s]
    others = sorted(set(recovery.phases_s) - set(PHASES) - {"total"})
    return [(name, recovery.phases_s[name]) for name in [*known, *others]]


def total_s(recovery: Recovery) -> float:
    """Seconds from the fault to the first new committed step, as far as it has got."""
    if "total" in recovery.phases_s:
        return recovery.phases_s["total"]
    return sum(seconds for _, seconds in ordered_phases(recovery))


def copied(recovery: Recovery) -> str:
    """``rank:0 -> rank:3 12.0 MiB``; ``nothing``."""
    routes: Mapping[str, int] = recovery.copied_bytes
    return ", ".join(f"{route} {format_bytes(routes[route])}" for route in sorted(routes)) or "nothing"


def is_restart(recovery: Recovery) -> bool:
    """Whether a command was started again: then steps and copies mean nothing."""
    return recovery.rung == Rung.RESTART


def loaded(load: Load) -> str:
    """``step 1100 from file, 12.0 GiB into 4 ranks in 3.21 s; longest read of rank 2 on file: ...``."""
    again = load.moved_bytes / load.data_bytes if load.data_bytes else 1.0
    read = f", {again:.2f} bytes read for each" if again >= _WASTEFUL else ""
    longest = f"; longest {load.bottleneck}" if load.bottleneck else ""
    longest += f"; {format_count(load.healed_reads, 'read')} only right when repeated" if load.healed_reads else ""
    amount = f"{format_bytes(load.data_bytes)} into {format_count(load.ranks, 'rank')}"
    kind = storage_kind(load.uri)
    where = "a snapshot" if kind == SNAPSHOT else kind
    return f"step {load.step} from {where}, {amount} in {load.seconds:.2f} s{read}{longest}"


def describe(recovery: Recovery, *, load: Load | None = None) -> list[str]:
    """One recovery in a few lines, with the load that was a part of it."""
    phases = ", ".join(f"{name.replace('_', ' ')} {seconds:.2f}" for name, seconds in ordered_phases(recovery))
    how = recovery.rung or "in progress"
    planned = " (planned)" if recovery.planned else ""
    head = f"generation {recovery.generation}{planned}: {recovery.fault}; {how}, {total_s(recovery):.2f} s"
    lines = [head, f"  seconds  {phases or '-'}"]
    lost = f"; {format_count(recovery.lost_steps, 'committed step')} lost"
    lines.append(
        f"  copied   {copied(recovery)}{': the command keeps its state itself' if is_restart(recovery) else lost}"
    )
    if load is not None:
        lines.append(f"  load     {loaded(load)}")
    if recovery.reason:
        lines.append(f"  why      {recovery.reason}")
    return lines


def timeline(
    recoveries: Sequence[Recovery], *, started_s: float, style: Style, leaders: Sequence[Event] = ()
) -> list[str]:
    """A bar per recovery, to one scale, with a line per phase; between them, in order, a line per new leader."""
    longest = max((total_s(r) for r in recoveries), default=0.0) or 1.0
    parts: list[tuple[float, list[str]]] = []
    for recovery in recoveries:
        fault = f"generation {recovery.generation}  {recovery.fault}  ({recovery.rung or 'in progress'})"
        head = f"{_after(recovery.started_s, started_s):>10}  {style.paint(fault, 'bold')}"
        parts.append((recovery.started_s, [head, *_bars(recovery, longest), ""]))
    parts += [
        (event.time_s, [f"{_after(event.time_s, started_s):>10}  {style.paint(event.message, 'cyan')}", ""])
        for event in leaders
    ]
    return [line for _, lines in sorted(parts, key=lambda part: part[0]) for line in lines][:-1]


def _after(time_s: float, started_s: float) -> str:
    return f"+{max(time_s - started_s, 0):.1f} s" if started_s else ""


def _bars(recovery: Recovery, longest_s: float) -> list[str]:
    lines: list[str] = []
    at_s = 0.0
    for name, seconds in [*ordered_phases(recovery)]:
        begin = round(_BAR_CELLS * at_s / longest_s)
        end = max(round(_BAR_CELLS * (at_s + seconds) / longest_s), begin + (seconds > 0))
        bar = " " * begin + "█" * (end - begin)
        lines.append(f"{'':>12}{name.replace('_', ' '):<11}{seconds:8.3f} s  |{bar:<{_BAR_CELLS}}|")
        at_s += seconds
    lines.append(f"{'':>12}{'total':<11}{total_s(recovery):8.3f} s")
    return lines
