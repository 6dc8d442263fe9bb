"""Without it a fault point could stand in the code that no test dies at, and a page would promise what nobody tried."""

from __future__ import annotations

from architecture.fault_points import asked_for_by_tests, named_by_tests, reached_in_the_code
from trainctl.core.system.faults import POINTS


def test_every_point_is_reached_in_the_code_and_is_in_the_list() -> None:
    found = dict(reached_in_the_code())
    hidden = [place for place, point in found.items() if not point]
    assert not hidden, f"give the point as a literal, so that it can be found: {hidden}"
    unknown = [f"{place} reaches {point}" for place, point in found.items() if point not in POINTS]
    assert not unknown, f"add them to POINTS, with where they are: {unknown}"
    assert set(POINTS) == set(found.values()), "nowhere in the code"


def test_some_test_dies_at_every_point() -> None:
    found = named_by_tests()
    missing = [point for point in POINTS if point not in found]
    assert not missing, f"no test that runs without `make chaos` names: {missing}"


def test_no_test_asks_for_a_fault_at_a_point_that_is_not_there() -> None:
    asked = list(asked_for_by_tests())
    assert {point for _, point in asked} & set(POINTS), "tests ask in a way that is not found any more"
    unknown = [f"{place} asks for {point}" for place, point in asked if point not in POINTS]
    assert not unknown, unknown
