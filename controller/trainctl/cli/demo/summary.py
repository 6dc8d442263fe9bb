"""What the demo says at its end: steps, tokens, where the time went, and every recovery with its phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.core.units import format_bytes, format_duration
from trainctl.protos.v1.job_pb2 import Job, Recovery
from trainctl.protos.v1.records_pb2 import StepFigures

PHASES = ("detect", "stop", "boot", "decide", "rendezvous", "restore", "first_step")


def summarize(job: Job, figures: Sequence[StepFigures]) -> list[str]:
    """Lines for people. ``figures`` are the committed steps of the surviving lineage, in order."""
    status = job.status
    tokens = sum(f.tokens for f in figures)
    lines = [
        f"job        {status.phase.lower()}: {status.step} of {status.total_steps} steps, {tokens:,} tokens",
        f"loss       {figures[0].loss:.3f} -> {figures[-1].loss:.3f} nats per token"
        + (f", eval loss {status.eval_loss:.3f}" if status.HasField("eval_loss") else ""),
        f"wall time  {format_duration(sum(status.goodput_s.values()))}: {goodput(status.goodput_s)}",
    ]
    for recovery in status.recoveries:
        lines += describe_recovery(recovery)
    return lines


def goodput(buckets: Mapping[str, float]) -> str:
    """The goodput split as ``productive 83 %, rendezvous 9 %, ...``, largest first."""
    total = sum(buckets.values()) or 1.0
    shares = sorted(((seconds / total, name) for name, seconds in buckets.items()), reverse=True)
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares if share >= 0.005)


def describe_recovery(recovery: Recovery) -> list[str]:
    """One recovery: what failed, how it was met, seconds by phase, what was copied from whom."""
    phases = recovery.phases_s
    known = [f"{name.replace('_', ' ')} {phases[name]:.2f}" for name in PHASES if name in phases]
    lines = [
        f"{'change' if recovery.planned else 'recovery':<10} generation {recovery.generation}, {recovery.fault}: "
        f"{recovery.rung}, {phases['total']:.2f} s",
        f"           seconds: {', '.join(known)}",
    ]
    copies = [f"{route} {format_bytes(size)}" for route, size in sorted(recovery.copied_bytes.items())]
    lines.append(f"           copied: {', '.join(copies) if copies else 'nothing'}; steps lost: {recovery.lost_steps}")
    return lines
