"""How faults are told: one line for people. Without it a recovery could name the wrong workers."""

from __future__ import annotations

from trainctl.controller.domain.reconcile.fault import Fault, FaultKind, are_lost, describe


def lost(slot: int, reason: str = "its agent on a is silent for 3 s") -> Fault:
    return Fault(slot=slot, kind=FaultKind.AGENT_LOST, reason=reason, at_s=1.0)


def exited(slot: int, reason: str = "was ended by SIGKILL on a") -> Fault:
    return Fault(slot=slot, kind=FaultKind.EXITED, reason=reason, at_s=1.0, exit_code=-9)


def test_workers_of_one_agent_are_named_together() -> None:
    assert describe([lost(0), lost(2), lost(1)]) == ("workers 0, 2 and 1 are lost: their agent on a is silent for 3 s")


def test_a_worker_alone_has_an_agent_alone() -> None:
    assert describe([lost(3)]) == "worker 3 is lost: its agent on a is silent for 3 s"


def test_agents_that_are_lost_for_different_reasons_are_told_apart() -> None:
    assert describe([lost(0), lost(1, "its agent on b exited")]) == (
        "worker 0 is lost: its agent on a is silent for 3 s; worker 1 is lost: its agent on b exited"
    )


def test_what_ended_by_itself_is_named_one_by_one() -> None:
    assert describe([exited(0), exited(1), lost(2)]) == (
        "worker 0 was ended by SIGKILL on a; worker 1 was ended by SIGKILL on a; "
        "worker 2 is lost: its agent on a is silent for 3 s"
    )


def test_lists_end_with_and() -> None:
    assert are_lost([1]) == "worker 1 is lost"
    assert are_lost([1, 4]) == "workers 1 and 4 are lost"
    assert are_lost([1, 4, 6]) == "workers 1, 4 and 6 are lost"
