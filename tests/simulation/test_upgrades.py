"""Controllers of two versions in turn: what the invariant about them catches, and a run in which it holds.

Without it an older controller could take over what it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from simulation.controllers import COUNTED, LATER
from simulation.history import read
from simulation.invariants import violations
from simulation.plan import JobPlan, Plan, Step
from simulation.world import Ran, play
from trainctl.controller import keys
from trainctl.controller.installation import SCHEMA
from trainctl.controller.store.port import KeyEvent

PLAN = Plan(
    seed=2,
    controllers=2,
    nodes=3,
    jobs=(JobPlan(name="a", at_s=0.0, least=2, most=2), JobPlan(name="b", at_s=1.0, least=1, most=1)),
    steps=(
        Step(at_s=10.0, kind="rolling_upgrade", for_s=4.0, count=2),
        Step(at_s=20.0, kind="rolled_back", for_s=8.0, count=2),
        Step(at_s=23.0, kind="end_leader"),
        Step(at_s=32.0, kind="crash_worker"),
    ),
    quiet_s=40.0,
)


@pytest.fixture(scope="module")
def ran() -> Ran:
    return play(PLAN)


def broken(ran: Ran) -> list[str]:
    return [violation for violation in violations(read(ran)) if violation.startswith("forms: ")]


def values(ran: Ran, part: str) -> list[Any]:
    """All that was written under such a key, in order."""
    events = (event for written in ran.written for event in written.events if part in event.key)
    return [keys.decode(event.current.value) for event in events if event.current is not None]


def edited(ran: Ran, fits: Callable[[KeyEvent], bool], edit: Callable[[Any], Any]) -> Ran:
    """The run with the last fitting value made different."""
    last = max(w.revision for w in ran.written for e in w.events if e.current is not None and fits(e))

    def event(one: KeyEvent) -> KeyEvent:
        if one.current is None or not fits(one):
            return one
        return replace(one, current=replace(one.current, value=keys.encode(edit(keys.decode(one.current.value)))))

    written = tuple(
        replace(one, events=tuple(event(e) for e in one.events)) if one.revision == last else one for one in ran.written
    )
    return replace(ran, written=written)


def test_a_rolling_upgrade_hurts_nothing(ran: Ran) -> None:
    assert violations(read(ran)) == []
    assert {value["schema"] for value in values(ran, keys.INSTALLATION)} == {SCHEMA, LATER[-1].to}
    assert [value.get(COUNTED, 0) for value in values(ran, "/members/")] == [0, 0, 1, 1, 0]
    assert any("NewerStoreError" in end for end in ran.ends), "it was the older one's turn"


def test_a_schema_that_falls(ran: Ran) -> None:
    wrong = edited(ran, lambda event: event.key == keys.INSTALLATION, lambda value: value | {"schema": SCHEMA})
    assert any("schema 3 became 2" in problem for problem in broken(wrong))


@pytest.mark.parametrize("times", [0, 2])
def test_a_value_that_is_brought_to_its_form_not_once(ran: Ran, times: int) -> None:
    def counted(event: KeyEvent) -> bool:
        assert event.current is not None
        return "/members/" in event.key and COUNTED in keys.decode(event.current.value)

    wrong = edited(ran, counted, lambda value: value | {COUNTED: times})
    assert any(f"changed {times} times" in problem for problem in broken(wrong))


def test_a_write_of_somebody_who_knows_only_the_older_form(ran: Ran) -> None:
    older = dict.fromkeys(ran.schemas, SCHEMA)
    assert any(f"it reads up to {SCHEMA}" in problem for problem in broken(replace(ran, schemas=older)))
