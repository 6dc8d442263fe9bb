"""Without it the scenarios would teach their readers recoveries that the controller does not do any more."""

from __future__ import annotations

import pytest

from simulation.scenario import FOLDER, load, seen

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def test_there_are_scenarios() -> None:
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_what_happens_is_what_the_file_expects(name: str) -> None:
    scenario = load(FOLDER / f"{name}.json")
    _, lines, wrong = seen(scenario)
    assert wrong == []
    assert list(lines) == list(scenario.expect), (
        f"scenario {name}: {scenario.about} If what happens now is right, take it over with: "
        f"PYTHONPATH=tests .venv/bin/python -m simulation --rewrite {name}"
    )
