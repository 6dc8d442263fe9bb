"""Numbers of a training run as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.cli.phases import has_ended
from trainctl.cli.render import transfers
from trainctl.cli.terminal.times import clock, rough
from trainctl.protos.v1.job_pb2 import JobStatus, WorkerStatus

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float) -> str:
    """A large count: ``950``, ``12.3k``, ``4.56M``."""
    for size, unit in _UNITS:
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def steps(status: JobStatus) -> str:
    """``120/500``; ``-`` for a command, which has no steps that are known here."""
    if not status.total_steps:
        return str(status.step) if status.step else "-"
    return f"{status.step}/{status.total_steps}"


def marked_steps(status: JobStatus, now_s: float) -> str:
    """As ``steps``; where no agent has told the leader the present one, with its time: ``120/500@14:03:05``."""
    return f"{steps(status)}{_mark(status, now_s) if status.step_stale else ''}"


def marked_loss(status: JobStatus, now_s: float) -> str:
    """As ``loss``; with its time where it is older than the step."""
    older = status.figures_stale and not status.step_stale and status.HasField("loss")
    return f"{loss(status)}{_mark(status, now_s) if older else ''}"


def _mark(status: JobStatus, now_s: float) -> str:
    return f"@{clock(status.figures_as_of_s, now_s).replace(' ', 'T')}"


def waiting(status: JobStatus, now_s: float) -> str:
    """What is old of the figures, since when, and what is waited for; empty if nothing is."""
    if not status.figures_stale or not (status.step_stale or status.HasField("loss")):
        return ""
    what = "the agents" if status.step_stale else "newer figures"
    return f"as of {clock(status.figures_as_of_s, now_s)}, waiting for {what}"


def worker_step(worker: WorkerStatus, status: JobStatus) -> str:
    """The step that a worker is at, of one whose job has ended the last; ``-`` where it has none."""
    step = worker.step if worker.pid else status.step if has_ended(status.phase) else 0
    return str(step) if step or (worker.pid and status.total_steps) else "-"


def loss(status: JobStatus) -> str:
    """Training loss of the newest step that was not skipped; ``-`` before the first."""
    return f"{status.loss:.4f}" if status.HasField("loss") else "-"


def eval_loss(status: JobStatus) -> str:
    """Newest eval loss; ``-`` before the first."""
    return f"{status.eval_loss:.4f}" if status.HasField("eval_loss") else "-"


def rate(status: JobStatus) -> str:
    """Tokens per second; ``-`` while it is not known."""
    return f"{count(status.tokens_per_s)} tokens/s" if status.tokens_per_s > 0 else "-"


def generations(status: JobStatus) -> str:
    """The generation of each island, joined: nearly always one number."""
    return ",".join(str(island.generation) for island in status.islands) or "-"


def progress(status: JobStatus, *, phase: str, now_s: float) -> str:
    """The line that says where a job is. ``phase`` is the phase as it should look, painted or not."""
    old = f" ({text})" if (text := waiting(status, now_s)) else ""
    of_step, of_loss = (old, "") if status.step_stale else ("", old)
    parts = [phase, f"step {steps(status)}{of_step}" if status.total_steps else "-", *transfers.sentences(status)]
    if status.step:
        parts.append(f"loss {loss(status)}{of_loss}" if status.HasField("loss") else "-")
        if status.HasField("eval_loss"):
            parts.append(f"eval loss {eval_loss(status)}")
        parts.append(rate(status))
        if status.eta_s > 0:
            parts.append(f"ETA {rough(status.eta_s)}")
    if any(island.generation for island in status.islands):
        parts.append(f"gen {generations(status)}")
    return "  ".join(part for part in parts if part != "-")


def goodput_lines(goodput_s: Mapping[str, float]) -> list[str]:
    """One line per bucket, the largest first, with its share; buckets without time are left out."""
    total = sum(goodput_s.values())
    if total <= 0:
        return []
    shown = sorted(((s, name) for name, s in goodput_s.items() if s > 0), key=lambda item: (-item[0], item[1]))
    width = max(len(name) for _, name in shown)
    return [f"{name:<{width}}  {100 * s / total:5.1f} %  {s:9.2f} s" for s, name in shown]


def goodput_sentence(goodput_s: Mapping[str, float]) -> str:
    """``productive 83.0 %, restoring 9.1 %``: what took at least half a percent, the largest first."""
    total = sum(goodput_s.values()) or 1.0
    shares = sorted(((s / total, name) for name, s in goodput_s.items()), key=lambda item: (-item[0], item[1]))
    return ", ".join(f"{name} {100 * share:.1f} %" for share, name in shares if share >= 0.005)
