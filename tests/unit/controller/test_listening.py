"""Whose fault silence is: the agents', or that of a controller that was frozen, is cut off, or has just begun.

Without it a controller that was frozen could declare all its nodes dead when it wakes up.
"""

from __future__ import annotations

import pytest

from trainctl.controller import keys
from trainctl.controller.agents.agent import Registration
from trainctl.controller.agents.listening import DEAF_S, Listening
from trainctl.controller.agents.registry import EXCUSED_S, AgentRegistry
from trainctl.controller.domain.pace import PACES_S
from trainctl.controller.store.port import KeyValue
from trainctl.core.clock import ManualClock
from trainctl.core.codec import to_wire
from trainctl.core.timeouts import PROFILES

SETTLE_S, ORPHAN_S, BEAT_S = 10.0, 600.0, 0.25


class Ear:
    """A controller that looks every quarter of a second, as a real one does."""

    def __init__(self) -> None:
        self.clock = ManualClock(50.0)
        self.listening = Listening(self.clock.monotonic_s, settle_s=SETTLE_S, orphan_timeout_s=ORPHAN_S)
        self.there = True
        self.all_reported = True
        self.anew = 0

    def wait(self, seconds: float, *, hears: bool) -> None:
        for _ in range(round(seconds / BEAT_S)):
            self.clock.advance(BEAT_S)
            if hears:
                self.listening.heard()
            self.anew += self.listening.awake(BEAT_S, lambda: self.there)

    @property
    def settled(self) -> bool:
        return self.listening.settled(lambda: self.all_reported)


def test_while_somebody_is_heard_the_silence_of_others_counts() -> None:
    ear = Ear()
    ear.wait(60.0, hears=True)
    assert ear.settled
    assert ear.anew == 0
    assert ear.listening.deaf_for_s() == 0.0


def test_who_hears_nobody_draws_no_conclusion_until_it_hears_and_has_settled_again() -> None:
    ear = Ear()
    ear.wait(5.0, hears=True)
    assert ear.settled
    ear.wait(DEAF_S, hears=False)
    assert ear.settled, "not longer than agents pause"
    ear.wait(30.0, hears=False)
    assert not ear.settled
    assert ear.listening.deaf_for_s() == pytest.approx(30.0 + DEAF_S)
    assert ear.anew == 0
    ear.all_reported = False
    ear.wait(BEAT_S, hears=True)
    assert ear.anew == 1, "the silence of each counts from now on"
    assert not ear.settled
    assert ear.listening.deaf_for_s() == 0.0
    ear.wait(SETTLE_S - BEAT_S, hears=True)
    assert not ear.settled
    ear.wait(2 * BEAT_S, hears=True)
    assert ear.settled


def test_where_nobody_is_expected_silence_is_no_deafness() -> None:
    ear = Ear()
    ear.there = False
    ear.wait(60.0, hears=False)
    assert ear.settled
    assert not ear.listening.deaf


def test_who_never_heard_anybody_is_not_cut_off_in_this_term() -> None:
    ear = Ear()
    ear.wait(60.0, hears=False)
    assert ear.listening.deaf
    assert ear.listening.deaf_for_s() == 0.0


def test_after_the_time_in_which_agents_end_their_workers_silence_is_their_end() -> None:
    ear = Ear()
    ear.wait(5.0, hears=True)
    ear.wait(ORPHAN_S, hears=False)
    assert not ear.settled
    ear.all_reported = False
    ear.wait(1.0 + SETTLE_S, hears=False)
    assert ear.settled
    assert ear.listening.deaf_for_s() == 0.0


def test_a_controller_that_was_frozen_has_not_been_deaf_meanwhile() -> None:
    ear = Ear()
    ear.wait(5.0, hears=True)
    ear.clock.advance(60.0)
    assert ear.listening.awake(BEAT_S, lambda: True)
    assert not ear.listening.deaf
    assert ear.listening.deaf_for_s() == 0.0


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("pace", PACES_S)
def test_deafness_is_noticed_before_anybody_is_lost(profile: str, pace: float) -> None:
    ear = Ear()
    ear.listening.heard()
    lost_s = PROFILES[profile].at_pace(pace).lost_s
    while ear.clock.monotonic_s() < 50.0 + lost_s:
        ear.clock.advance(BEAT_S)
        ear.listening.awake(pace, lambda: True)
    assert ear.listening.deaf


def test_of_two_agents_the_dead_one_is_noticed_although_the_other_is_slow() -> None:
    """Between beats of more than a second nobody is heard, which might be our own fault, but not for ever."""
    clock = ManualClock(50.0)
    agents = AgentRegistry(clock.monotonic_s, settle_s=0.0)
    stored = [
        KeyValue(
            key=keys.node(node),
            value=keys.encode(to_wire(Registration(node=node, slots=1))),
            create_revision=number,
            mod_revision=number,
            version=1,
        )
        for number, node in enumerate(("dead", "slow"), start=1)
    ]
    agents.load(stored)
    _, slow = agents.agents()
    for _ in range(20):
        for _ in range(6):
            clock.advance(BEAT_S)
            agents.awake()
        with agents.hearing(slow):
            pass
    ages = {agent.node: agent.last_heard_age_s for agent in agents.view().agents}
    assert ages == {"dead": pytest.approx(20 * 1.5 - EXCUSED_S), "slow": 0.0}
