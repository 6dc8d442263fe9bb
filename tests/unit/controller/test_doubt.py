"""Without it a controller on an old copy of its store could kill jobs that run well, or distrust a good store."""

from __future__ import annotations

import pytest

from trainctl.controller.agents.agent import Agent, Registration
from trainctl.controller.agents.doubt import ACCEPTED_JUMP, doubt_of

OWN = 7


def life(incarnation: int, *, told: bool = False) -> Agent:
    return Agent(Registration(node="n", slots=1), incarnation, 0.0, told=told)


def doubt(known: Agent | None, incarnation: int, epoch: int, own_epoch: int = OWN) -> str:
    return doubt_of(known, node="n", incarnation=incarnation, epoch=epoch, own_epoch=own_epoch)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("epoch", [0, 1, OWN - 1])
def test_whoever_obeyed_earlier_leaders_only_is_no_reason(epoch: int, told: bool) -> None:
    assert doubt(life(30, told=told), 30, epoch) == ""
    assert doubt(life(30, told=told), 29, epoch) == "", "an earlier life of the node, which is over"


def test_whoever_obeyed_a_later_leader_is_a_reason() -> None:
    assert "leader of epoch 8, this controller has 7" in doubt(life(30, told=True), 30, OWN + 1)
    assert "leader of epoch 8" in doubt(None, 30, OWN + 1)


def test_an_epoch_that_comes_twice_is_noticed() -> None:
    assert "another leader of this controller's epoch, 7" in doubt(life(30), 30, OWN)
    assert doubt(life(30, told=True), 30, OWN) == "", "it was this one"
    assert doubt(life(31), 30, OWN) == "", "a life that is over may have known this one"


@pytest.mark.parametrize("known", [None, life(12)])
def test_a_life_that_the_store_does_not_know_is_a_reason_until_somebody_accepts_the_store(known: Agent | None) -> None:
    assert "incarnation 30, which this controller's store has no record of" in doubt(known, 30, OWN - 2)
    assert doubt(known, 30, OWN - 2, own_epoch=OWN + ACCEPTED_JUMP) == ""
