from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from e2e.local_system import LocalSystem

FOLDER = Path(__file__).parent
LONGEST_FIRST = ("test_failures", "test_docs", "test_operate", "test_command", "test_loops", "test_outage")
"""Files with much to do; the others come after them."""
SINGLY = ("test_docs", "test_outage", "test_demo_interrupted", "test_results")
"""Files whose tests share no system."""


class Dealer(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """``--dist loadfile``, but the tests of some files are dealt singly: together they would take too long."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if Path(file).stem in SINGLY else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Dealer | None:
    return Dealer(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that in the end no process works while the other has nothing left."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(FOLDER)]
    ours = sorted((items[place] for place in places), key=_turn)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _turn(item: pytest.Item) -> int:
    return LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else len(LONGEST_FIRST)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 400 KB of text that repeats enough to be learnt."""
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(8):
        lines = [f"the {index}th book says that {n} times {index} is {n * index}.\n" for n in range(1500)]
        (folder / f"book-{index}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One running local system for all tests of a file: two agents with two slots each."""
    system = LocalSystem(tmp_path_factory.mktemp("system") / "local", agents=2, slots=2)
    system.up()
    yield system
    system.down()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Callable[..., LocalSystem]]:
    """Makes running local systems; all of them end with the test."""
    systems: list[LocalSystem] = []

    def make(agents: int = 2, slots: int = 2, env: Mapping[str, str] | None = None) -> LocalSystem:
        home = tmp_path / f"home-{len(systems)}"
        home.mkdir()
        system = LocalSystem(home / "local", agents, slots, env or {})
        systems.append(system)
        system.up()
        return system

    yield make
    for system in systems:
        system.down()
