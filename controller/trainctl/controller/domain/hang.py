"""When a worker counts as frozen: it did not touch its progress page for longer than anything it does takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.core.records.spec import LOG, NOTHING, HangSpec
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Progress
from trainctl.core.timeouts import Timeouts
from trainctl.core.units import parse_duration_s

_UNJUDGED = frozenset({Phase.BOOTING, Phase.READY, Phase.INTERRUPTED, Phase.FINISHED})
"""Phases in which a worker may sleep; the deadlines of booting, PREPARE and RUN and the grace of STOP cover them."""

_SECTIONS = frozenset({Phase.REBUILD, Phase.RESTORE, Phase.EVAL, Phase.CHECKPOINT})
"""Phases in which a single operation, such as a write to the storage, has nothing to do with the step time."""

STEPS_TO_KNOW = 3
STEPS_TO_HANG = 3
FIRST_STEP_FACTOR = 3
"""The first step of a generation warms up connections and, in new workers, caches: it may take so much longer."""


def typical_step_s(recent_step_s: Sequence[float]) -> float | None:
    """Median of the newest step times; None before there are ``STEPS_TO_KNOW``."""
    if len(recent_step_s) < STEPS_TO_KNOW:
        return None
    return sorted(recent_step_s)[len(recent_step_s) // 2]


def frozen_limit_s(phase: Phase, step_s: float | None, timeouts: Timeouts, *, first_step: bool = False) -> float | None:
    """Seconds without a sign of life that a worker in this phase is allowed; None: this phase is not judged.

    Before the step time is known (the first steps warm up caches and compile), the collective time-out is the limit.
    """
    if phase in _UNJUDGED or not phase.known:  # nobody here knows whether a worker may sleep in it
        return None
    if phase in _SECTIONS or step_s is None:
        return max(timeouts.collective_s, timeouts.hang_floor_s)
    limit_s = max(timeouts.hang_floor_s, STEPS_TO_HANG * step_s)
    return limit_s * FIRST_STEP_FACTOR if first_step else limit_s


def frozen(progress: Progress, step_s: float | None, timeouts: Timeouts, *, first_step: bool = False) -> str:
    """The sentence that says why this worker is frozen; empty if it is not."""
    limit_s = frozen_limit_s(progress.phase, step_s, timeouts, first_step=first_step)
    if limit_s is None or progress.alive_age_s <= limit_s:
        return ""
    step = f", a step takes {step_s:.2f} s" if step_s is not None else ""
    where = "" if progress.phase is Phase.COMMAND else f" of step {progress.step + 1}"
    return (
        f"no sign of life for {progress.alive_age_s:.1f} s in phase {progress.phase.value}{where} "
        f"(limit {limit_s:.1f} s{step})"
    )


def silent_rank(seen: Mapping[int, Progress], hang: HangSpec, timeouts: Timeouts) -> int | None:
    """The rank whose silence says that a command hangs; None if it goes on.

    Every rank touches its own heartbeat file, so the first silent one counts. Of the output, only the silence of all
    does: many scripts print on rank 0 alone, and where one rank hangs in a collective, all soon do. Before its first
    sign of life a rank has at least ``boot_s``: to load libraries and data takes longer than anything later.

    Args:
        seen: of each rank whose command runs.
        hang: of the job file.
        timeouts: of the job.
    """
    if not seen or hang.watch == NOTHING:
        return None
    after_s = parse_duration_s(hang.after)
    silent = {
        rank: progress.alive_age_s
        for rank, progress in seen.items()
        if progress.alive_age_s > (after_s if _was_heard(progress) else max(after_s, timeouts.boot_s))
    }
    if not silent or (hang.watch == LOG and len(silent) < len(seen)):
        return None
    return max(silent, key=lambda rank: silent[rank])


def _was_heard(progress: Progress) -> bool:
    """Whether the page was touched after the phase began."""
    return progress.alive_age_s < progress.phase_age_s
