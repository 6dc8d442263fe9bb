"""Without it an agent could start a worker twice, kill a healthy one, or fill a slot whose last life still runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainctl.agent.state import (
    Action,
    Decline,
    Forget,
    Instruct,
    Kill,
    Life,
    Start,
    Terminate,
    WorkerKey,
    decide,
    key_of,
)
from trainctl.core.records.worker import Instruction, WorkerDesired


def want(
    slot: int = 0, incarnation: int = 1, instruction: Instruction = Instruction.STANDBY, *, generation: int = 0
) -> WorkerDesired:
    return WorkerDesired(
        job_uid="u", job_name="n", island="i", slot=slot, incarnation=incarnation, instruction=instruction,
        generation=generation, grace_s=10.0,
    )  # fmt: skip


def live(desired: WorkerDesired, *, since_s: float | None = None, terminated: bool = False) -> Life:
    return Life(key=key_of(desired), instructed=desired, stopping_since_s=since_s, terminated=terminated)


def actions(
    desired: Sequence[WorkerDesired], lives: Sequence[Life], now_s: float = 100.0, *, can_start: bool = True
) -> tuple[Action, ...]:
    return decide(desired, lives, now_s=now_s, can_start=can_start).actions


KEY = key_of(want())
PREPARE = want(instruction=Instruction.PREPARE, generation=2)
STOP = want(instruction=Instruction.STOP)
KILL = want(instruction=Instruction.KILL)


@pytest.mark.parametrize("instruction", [Instruction.STANDBY, Instruction.PREPARE, Instruction.RUN])
def test_starts_what_is_missing(instruction: Instruction) -> None:
    desired = want(instruction=instruction)
    assert actions([desired], []) == (Start(desired),)


def test_starts_nothing_without_a_fork_server() -> None:
    assert actions([want()], [], can_start=False) == ()


@pytest.mark.parametrize("desired", [STOP, KILL])
def test_what_is_to_stop_is_not_started_first(desired: WorkerDesired) -> None:
    assert actions([desired], []) == (Decline(desired),)


def test_hands_on_a_new_instruction_once() -> None:
    assert actions([PREPARE], [live(want())]) == (Instruct(KEY, PREPARE),)
    assert actions([PREPARE], [live(PREPARE)]) == ()


def test_kills_the_condemned_at_once_and_once() -> None:
    (action,) = actions([KILL], [live(want())])
    assert isinstance(action, Kill)
    assert actions([KILL], [replace(live(want()), killed=True)]) == ()


def test_an_exited_worker_stays_until_nobody_asks() -> None:
    exited = replace(live(want()), exited=True)
    assert actions([want()], [exited]) == ()
    assert actions([KILL], [exited]) == ()
    assert actions([], [exited]) == (Forget(KEY),)


def test_not_desired_gets_sigterm_then_sigkill() -> None:
    decision = decide([], [live(want())], now_s=100.0)
    assert decision.actions == (Terminate(KEY),)
    assert decision.wake_at_s == 110.0
    told = live(want(), since_s=100.0, terminated=True)
    assert decide([], [told], now_s=109.9).actions == ()
    assert decide([], [told], now_s=109.9).wake_at_s == 110.0
    (action,) = actions([], [told], 110.0)
    assert isinstance(action, Kill)


def test_stop_has_a_grace() -> None:
    decision = decide([STOP], [live(want())], now_s=100.0)
    assert decision.actions == (Instruct(KEY, STOP),)
    assert decision.wake_at_s == 110.0
    told = live(STOP, since_s=100.0)
    assert actions([STOP], [told], 105.0) == ()
    (action,) = actions([STOP], [told], 110.0)
    assert isinstance(action, Kill)


def test_a_new_life_waits_for_the_confirmed_end_of_the_old_one() -> None:
    new = want(incarnation=2)
    (action,) = actions([new], [live(want())])
    assert isinstance(action, Kill)
    assert actions([new], [replace(live(want()), killed=True)]) == ()
    assert actions([new], [replace(live(want()), killed=True, exited=True)]) == (Forget(KEY), Start(new))


def test_slots_and_jobs_do_not_disturb_each_other() -> None:
    other = replace(want(), job_uid="other")
    assert actions([want(), want(1, 2), other], [live(want())]) == (Start(want(1, 2)), Start(other))


def carry_out(action: Action, lives: dict[WorkerKey, Life], now_s: float) -> None:
    match action:
        case Start(desired):
            assert not any(life.key.place == key_of(desired).place and not life.exited for life in lives.values())
            lives[key_of(desired)] = live(desired)
        case Decline(desired):
            lives[key_of(desired)] = replace(live(desired), exited=True)
        case Instruct(key, desired):
            since_s = now_s if desired.instruction is Instruction.STOP else None
            lives[key] = replace(lives[key], instructed=desired, stopping_since_s=since_s)
        case Terminate(key):
            lives[key] = replace(lives[key], terminated=True, stopping_since_s=now_s)
        case Kill(key, _):
            lives[key] = replace(lives[key], killed=True)
        case Forget(key):
            del lives[key]


WANTS = st.lists(
    st.builds(want, st.integers(0, 2), st.integers(1, 4), st.sampled_from(Instruction)),
    unique_by=lambda each: each.slot,
    max_size=3,
)


@example([([want(0, 1, Instruction.STANDBY)], set(), 0.0), ([], set(), 0.0)] * 2)
@given(st.lists(st.tuples(WANTS, st.sets(st.integers(1, 4)), st.floats(0, 30)), max_size=12))
def test_converges_and_never_runs_two_lives_of_a_slot(
    history: list[tuple[list[WorkerDesired], set[int], float]],
) -> None:
    lives: dict[WorkerKey, Life] = {}
    now_s = 0.0
    for desired, dying, passed_s in history:
        now_s += passed_s
        lives = {key: replace(life, exited=life.exited or key.incarnation in dying) for key, life in lives.items()}
        for action in actions(desired, tuple(lives.values()), now_s):
            carry_out(action, lives, now_s)
        assert actions(desired, tuple(lives.values()), now_s) == ()
    desired = history[-1][0] if history else []
    for _ in range(4):
        now_s += 100.0
        lives = {key: replace(life, exited=life.exited or life.killed) for key, life in lives.items()}
        for action in actions(desired, tuple(lives.values()), now_s):
            carry_out(action, lives, now_s)
    assert set(lives) == {key_of(each) for each in desired}
    for each in desired:
        if each.instruction in (Instruction.KILL, Instruction.STOP):
            assert lives[key_of(each)].exited
