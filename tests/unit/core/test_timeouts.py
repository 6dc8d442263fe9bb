"""The time-outs that one word stands for.

Without it a late heartbeat could count as a lost agent, or a job wait for its replacement as long as another one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.core.errors import PlanError
from trainctl.core.records.spec import JobMetadata, JobSpec, RecoverySpec, TrainJob
from trainctl.core.records.train_spec import TrainSpec
from trainctl.core.timeouts import COMPILE_FACTOR, PROFILES, Timeouts

BALANCED = PROFILES["balanced"]


@pytest.mark.parametrize(("faster", "slower"), [("fast", "balanced"), ("balanced", "patient")])
def test_every_time_out_of_a_more_patient_profile_is_longer(faster: str, slower: str) -> None:
    for name in Timeouts.__dataclass_fields__:
        assert getattr(PROFILES[faster], name) < getattr(PROFILES[slower], name), name


def test_what_people_were_told_of_the_balanced_profile() -> None:
    assert (BALANCED.heartbeat_s, BALANCED.suspect_s, BALANCED.lost_s, BALANCED.collective_s) == (1.0, 3.0, 10.0, 60.0)
    assert (BALANCED.replacement_wait_s, BALANCED.boot_s, BALANCED.orphan_s) == (30.0, 180.0, 600.0)


def test_an_order_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(PlanError, match=r"expected 0 < suspect_s < lost_s, found 3 s and 3 s"):
        replace(BALANCED, lost_s=3.0)
    with pytest.raises(PlanError, match="expected 0 < heartbeat_s"):
        replace(BALANCED, heartbeat_s=0.0)
    with pytest.raises(PlanError, match="a late heartbeat looks like a frozen worker"):
        replace(BALANCED, hang_floor_s=BALANCED.suspect_s)


def test_agents_that_report_seldom_are_suspected_later() -> None:
    assert BALANCED.at_pace(1.0) is BALANCED
    assert BALANCED.at_pace(0.5) is BALANCED
    slow = BALANCED.at_pace(8.0)
    assert (slow.suspect_s, slow.lost_s, slow.hang_floor_s) == (12.0, 20.0, 20.0)
    assert slow.boot_s == BALANCED.boot_s
    a_little = BALANCED.at_pace(1.5)
    assert (a_little.suspect_s, a_little.lost_s, a_little.hang_floor_s) == (3.0, 10.0, 10.0)


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"\(fast, balanced, patient\), found 'quick'"):
        Timeouts.for_profile("quick")


def job(*, profile: str = "balanced", replacement_wait: str = "", compiled: bool = False) -> TrainJob:
    recovery = RecoverySpec(profile=profile, replacement_wait=replacement_wait)
    spec = JobSpec(recovery=recovery, train=TrainSpec(compile=compiled))
    return TrainJob(metadata=JobMetadata(name="one"), spec=spec)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_job_has_the_time_outs_of_its_profile(profile: str) -> None:
    assert Timeouts.for_job(job(profile=profile)) == PROFILES[profile]


def test_a_job_may_say_itself_how_long_it_waits_for_a_replacement() -> None:
    assert Timeouts.for_job(job(replacement_wait="90s")) == replace(BALANCED, replacement_wait_s=90.0)
    assert Timeouts.for_job(job(replacement_wait="0s")) == replace(BALANCED, replacement_wait_s=0.0)


def test_a_model_that_is_compiled_boots_longer_and_is_waited_for_longer() -> None:
    found = Timeouts.for_job(job(compiled=True, replacement_wait="1s"))
    boot_s = BALANCED.boot_s * COMPILE_FACTOR
    assert (found.boot_s, found.orphan_s, found.replacement_wait_s) == (boot_s, 2 * boot_s, 1.0)
    assert Timeouts.for_job(job(profile="patient", compiled=True)).orphan_s >= PROFILES["patient"].orphan_s
