"""How often agents report, and what of it is news.

Without it a thousand agents could drown a controller, or a failure be seen late.
"""

from dataclasses import replace

import pytest

from trainctl.controller.domain.pace import HEARTBEATS_PER_S, PACES_S, heartbeat_s, is_news
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.worker import Progress, WorkerObserved, WorkerPhase
from trainctl.core.timeouts import PROFILES


@pytest.mark.parametrize("agents", [0, 1, 200, 500, 501, 1000, 2000, 5000, 9_999, 10_000])
def test_a_controller_hears_no_more_heartbeats_than_it_bears(agents: int) -> None:
    period_s = heartbeat_s(agents)
    assert agents / period_s <= HEARTBEATS_PER_S or period_s == PACES_S[-1]
    shorter = [pace for pace in PACES_S if pace < period_s]
    assert not shorter or agents / shorter[-1] > HEARTBEATS_PER_S, "no more rarely than needed"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("pace", PACES_S)
def test_silence_counts_only_after_lost_heartbeats(profile: str, pace: float) -> None:
    timeouts = PROFILES[profile].at_pace(pace)  # which checks their order
    assert timeouts.suspect_s > pace
    assert timeouts.lost_s >= 2.5 * pace
    assert timeouts.hang_floor_s >= 2.5 * pace
    if pace <= PROFILES[profile].heartbeat_s:
        assert timeouts == PROFILES[profile]


def test_a_tenth_of_10_000_nodes_is_judged_within_15_s() -> None:

    assert PROFILES["fast"].at_pace(heartbeat_s(10_000)).lost_s <= 15.0


def test_progress_alone_is_no_news() -> None:
    before = WorkerObserved(job_uid="j", slot=0, incarnation=1, pid=7, phase=WorkerPhase.RUNNING, generation=1)
    moved = replace(before, rss_bytes=5, progress=Progress(step=9, phase=Phase.VOTE, alive_age_s=1.0))
    assert not is_news((before,), (moved,))
    for changed in (
        replace(before, phase=WorkerPhase.EXITED),
        replace(before, exit_code=0),
        replace(before, generation=2),
        replace(before, report=StepReport(prepared_generation=2, lineage=1, applied_step=3)),
        replace(before, progress=Progress(phase=Phase.HELD)),
        replace(before, progress=Progress(phase=Phase.INTERRUPTED)),
        replace(before, notices=("a hook failed",)),
        replace(before, incarnation=2),
    ):
        assert is_news((before,), (changed,)), changed
    assert is_news((before,), ())
    assert is_news((), (before,))
