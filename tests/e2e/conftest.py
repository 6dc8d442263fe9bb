from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from e2e.local_system import LocalSystem


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
