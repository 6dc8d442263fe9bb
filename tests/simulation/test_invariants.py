"""Each invariant catches the history that it is about: a run that was in order, with one thing in it made wrong.

Without it the simulation could be green because its checks see nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from simulation.history import read
from simulation.invariants import INVARIANTS, violations
from simulation.plan import JobPlan, Plan, Step
from simulation.world import Ran, play
from trainctl.controller import keys
from trainctl.controller.store.port import KeyEvent, KeyValue

PLAN = Plan(
    seed=3,
    nodes=3,
    jobs=(
        JobPlan(name="a", at_s=0.0, least=2, most=2, steps=60),
        JobPlan(name="b", at_s=1.0, least=1, most=1, steps=30),
    ),
    steps=(Step(at_s=8.0, kind="end_leader"),),
    quiet_s=20.0,
)
Json = dict[str, Any]
Edit = Callable[[Json], None]


@pytest.fixture(scope="module")
def ran() -> Ran:
    return play(PLAN)


def status_edited(ran: Ran, number: int, edit: Edit, *, name: str = "a") -> Ran:
    """The run with the ``number``-th state of a job made different."""
    change = [change for change in read(ran).changes if change.name == name and change.after is not None][number]

    def edited(event: KeyEvent) -> KeyEvent:
        if not event.key.endswith(keys.STATUS) or event.current is None:
            return event
        state = keys.decode(event.current.value)
        edit(state)
        return replace(event, current=replace(event.current, value=keys.encode(state)))

    written = tuple(
        replace(one, events=tuple(edited(e) for e in one.events)) if one.revision == change.revision else one
        for one in ran.written
    )
    return replace(ran, written=written)


def broken(ran: Ran) -> set[str]:
    return {violation.partition(":")[0] for violation in violations(read(ran))}


def test_a_run_in_order_breaks_nothing(ran: Ran) -> None:
    assert violations(read(ran)) == []
    assert len({written.client for written in ran.written}) > 1, "two controllers have led"
    assert set(INVARIANTS) == {*(f"I{number}" for number in range(1, 17)), "marks", "terms", "forms", "bugs"}


def _island(state: Json, **changes: Any) -> None:
    state["islands"][0].update(changes)


def _record(state: Json, **changes: Any) -> None:
    state["islands"][0]["record"].update(changes)


def _crowd(state: Json) -> None:
    for slot in state["islands"][0]["slots"]:
        slot["agentIncarnation"] = 10**6
    state["islands"][0]["slots"] *= 2


def _lend(state: Json) -> None:
    """Its second worker has no place."""
    state["islands"][0]["slots"][1]["agentIncarnation"] = 0


MUTANTS: list[tuple[str, int, Edit]] = [
    ("I2", -1, lambda state: _island(state, generation=0)),
    ("I3", -1, lambda state: _record(state, generation=5, predecessor=3)),
    ("I3", -1, lambda state: _island(state, record=None)),
    ("I4", -2, _crowd),
    ("I6", -2, lambda state: state["checkpoints"].reverse()),
    ("I6", -1, lambda state: state.update(checkpoints=[])),
    ("I6", -1, lambda state: state.update(pinned=[state["checkpoints"][-1]["uri"]])),
    ("I9", -1, lambda state: state.update(attempt=7)),
    ("I10", -2, lambda state: state["restarts"].update(processS=[1.0] * 2000)),
    ("I11", -2, lambda state: state["goodput"]["closedUs"].update(queued=1)),
    ("I12", -2, lambda state: state["progress"].update(cursor=13)),
    ("I14", -1, lambda state: state.update(phase="FAILED")),
    ("I15", -2, lambda state: _island(state, generation=2)),
    ("I16", -1, lambda state: state.update(phase="RUNNING")),
    ("terms", -2, lambda state: state.update(epoch=99)),
]


@pytest.mark.parametrize(("name", "number", "edit"), MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)])
def test_a_state_that_is_wrong_is_caught(ran: Ran, name: str, number: int, edit: Edit) -> None:
    assert name in broken(status_edited(ran, number, edit))


def test_i1_a_job_that_rises_from_the_dead(ran: Ran) -> None:
    dead = status_edited(ran, -2, lambda state: state.update(phase="CANCELLED"))
    assert "I1" in broken(dead)


def test_i5_part_of_an_island(ran: Ran) -> None:
    placed = [c for c in read(ran).changes if c.name == "a"]
    number = next(i for i, c in enumerate(placed) if c.after is not None and c.after["phase"] == "ADMITTED")
    assert "I5" in broken(status_edited(ran, number, _lend))


def test_i6_a_checkpoint_whose_files_are_gone(ran: Ran) -> None:
    saved = frozenset(ref["uri"] for state in read(ran).final.values() for ref in state["checkpoints"])
    assert saved
    assert "I6" in broken(replace(ran, gone=saved))


def test_a_job_on_a_node_that_was_cordoned_before(ran: Ran) -> None:
    early = next(w for w in ran.written if any(e.key.startswith(keys.NODES) for e in w.events))
    asked = [replace(ran.asked[0], method="CordonNode", request_id="c", answered_s=early.at_s - 100.0)]
    mark = keys.encode({"cordoned": True, "draining": False})
    value = KeyValue(key="", value=mark, create_revision=1, mod_revision=1, version=1)
    named = [keys.node_mark(f"node-{number}") for number in range(3)] + [keys.request("default", "c")]
    events = tuple(KeyEvent(key=key, current=replace(value, key=key)) for key in named)
    cordons = replace(early, revision=-1, events=events)
    assert "marks" in broken(replace(ran, written=(cordons, *ran.written), asked=(*ran.asked, *asked)))
    assert "marks" not in broken(replace(ran, written=(cordons, *ran.written)))


def test_i7_a_write_of_a_leader_that_was(ran: Ran) -> None:
    first, last = ran.written[0], ran.written[-1]
    stale = replace(last, revision=last.revision + 1, compares=first.compares, client="controller-0#1")
    held = next(written.compares for written in ran.written if written.compares and written.client != last.client)
    assert "I7" in broken(replace(ran, written=(*ran.written, stale)))
    assert "I7" in broken(replace(ran, written=(*ran.written, replace(stale, compares=held))))


def test_i7_an_agent_that_obeys_a_leader_that_was(ran: Ran) -> None:
    newest = ran.obeyed[-1]
    assert newest.epoch > 1
    assert "I7" in broken(replace(ran, obeyed=(*ran.obeyed, replace(newest, epoch=newest.epoch - 1))))


def test_i8_a_request_that_took_effect_twice(ran: Ran) -> None:
    asked = ran.asked[0]
    other = next(uid for uid in read(ran).uids if uid != asked.answer)
    assert "I8" in broken(replace(ran, asked=(*ran.asked, replace(asked, answer=other))))
    made = next(w for w in ran.written if any("/requests/" in e.key for e in w.events))
    assert "I8" in broken(replace(ran, written=(*ran.written, made)))
    assert "I8" in broken(replace(ran, asked=ran.asked[:1]))


def test_i12_a_checkpoint_of_steps_that_nobody_voted_for(ran: Ran) -> None:
    key, steps = next(iter(ran.saved.items()))
    assert "I12" in broken(replace(ran, saved={**ran.saved, key: steps[:-1]}))
    assert "I12" in broken(replace(ran, saved={**ran.saved, key: (*steps[:-1], 99)}))


def test_i13_an_intent_that_is_left(ran: Ran) -> None:
    last = ran.written[-1]
    event = next(e for w in ran.written for e in w.events if e.current is not None)
    left = replace(last, events=(KeyEvent(key=keys.intent("node-0"), current=event.current),))
    assert "I13" in broken(replace(ran, written=(*ran.written, left)))


def test_i14_a_job_that_never_ends(ran: Ran) -> None:
    assert "I14" in broken(replace(ran, settled_s=float("inf"), waiting=("a RUNNING",)))


def test_i15_a_worker_that_is_lost_with_no_fault_but_the_controllers(ran: Ran) -> None:
    def lost(value: bytes) -> bytes:
        return value.replace(b'"worker.ready"', b'"worker.lost"')

    written = tuple(
        replace(
            one,
            events=tuple(
                replace(e, current=replace(e.current, value=lost(e.current.value))) if e.current is not None else e
                for e in one.events
            ),
        )
        for one in ran.written
    )
    assert "I15" in broken(replace(ran, written=written))


def test_i16_an_event_that_is_missing_or_written_over(ran: Ran) -> None:
    number = max(i for i, w in enumerate(ran.written) if any(e.key.startswith(keys.EVENTS) for e in w.events))
    one = ran.written[number]
    without = replace(one, events=tuple(e for e in one.events if not e.key.startswith(keys.EVENTS)))
    assert "I16" in broken(replace(ran, written=(*ran.written[:number], without)))
    assert "I16" in broken(replace(ran, written=(*ran.written, one)))


def test_a_bug_of_a_controller(ran: Ran) -> None:
    assert "bugs" in broken(replace(ran, bugs=("Traceback",)))
    assert "bugs" in broken(replace(ran, ends=("controller-0#1: KeyError: 1",)))
