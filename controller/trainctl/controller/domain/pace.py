"""How often many agents report, and how often what they report is looked at. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from enum import Enum

from trainctl.core.records.step import Phase
from trainctl.core.records.worker import WorkerObserved

PACES_S = (0.25, 0.5, 1.0, 2.5, 5.0)
HEARTBEATS_PER_S = 1000
"""That a controller is to hear from all agents together, as long as none waits longer than the longest pace."""


class Heard(Enum):
    """What an agent's observation is to a job.

    Attributes:
        PROGRESS: nothing that a decision waits for.
        NEWS: something that the next decision may wait for.
        ANSWER: that its workers have done what they were told, while others have not: a decision waits for those.
    """

    PROGRESS = "progress"
    NEWS = "news"
    ANSWER = "answer"


_PAUSE_EACH_S: Mapping[Heard, float] = {Heard.PROGRESS: 0.00025, Heard.NEWS: 0.00002, Heard.ANSWER: 0.0002}
_WAITING = frozenset({Phase.INTERRUPTED, Phase.HELD, Phase.FINISHED})


def heartbeat_s(agents: int) -> float:
    """Seconds between two heartbeats of an agent, where there are so many; steps, so that it rarely changes."""
    return PACES_S[min(bisect_left(PACES_S, agents / HEARTBEATS_PER_S), len(PACES_S) - 1)]


def pause_s(*, slots: int, agents: int, heard: Heard) -> float:
    """How long to wait for more before a job of so many slots is looked at.

    A look costs time for every slot and agent. Without a pause a controller that hears of a thousand workers would look
    a thousand times, and would hear of the next one between two looks only.
    """
    return _PAUSE_EACH_S[heard] * (slots + agents)


def is_news(before: tuple[WorkerObserved, ...], after: tuple[WorkerObserved, ...]) -> bool:
    """Whether an observation shows more than progress: something that the next decision may wait for."""
    if before is after:
        return False
    return len(before) != len(after) or any(
        _standing(old) != _standing(new) for old, new in zip(before, after, strict=True)
    )


def _standing(worker: WorkerObserved) -> tuple[object, ...]:
    progress = worker.progress
    return (
        worker.job_uid,
        worker.slot,
        worker.incarnation,
        worker.pid,
        worker.phase,
        worker.generation,
        worker.report,
        worker.exit_code,
        worker.error,
        worker.steps,
        worker.notices,
        progress.generation,
        progress.phase if progress.phase in _WAITING else None,
    )
