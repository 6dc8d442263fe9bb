"""A process that saves is killed between any two of its calls that change files, and half way through any write.

Without it a crash at one bad instruction could cost the only checkpoint.

What was complete before loads afterwards, or the new one does; what is left behind goes with the next save.
`make test-system` kills at some of the calls and near the one that completes the save, `make chaos` at all of them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from multiproc.dying import calls_of, dies
from multiproc.ways_to_save import WAYS, Way

pytestmark = pytest.mark.multiproc
COMPLETES = "os.link"
EMPTY = re.compile(r"job-1/step-\d+")
"""A folder of the node's memory that nothing may be left in: it costs nothing, and goes with the job."""
everywhere = [pytest.mark.chaos]
ways = pytest.mark.parametrize(
    ("way", "every"),
    [
        *(pytest.param(way, 1, marks=everywhere, id=f"{name}-everywhere") for name, way in WAYS.items()),
        *(pytest.param(WAYS[name], 16, id=name) for name in ("chunked", "hf-beside", "in-memory")),
    ],
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On a disk, if the system's folder for such is on one: some of the ways go past its cache."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def names(folder: Path) -> set[str]:
    """Of all files that lie there, and of folders of attempts, whatever those are called."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {re.sub("[0-9a-f]{16}", "<attempt>", name) for name in found if not EMPTY.fullmatch(name)}


def before_it(way: Way, folder: Path) -> None:
    """A checkpoint of step 1, and what is left of one of step 2."""
    way.save(folder, 1)
    calls = calls_of(partial(way.save, _copied(folder, "counted"), 2))
    assert dies(partial(way.save, folder, 2), before=calls.index(COMPLETES))
    assert way.loaded(folder) == 1


def _copied(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(name)))


def steps_after(way: Way, folder: Path, numbers: Iterable[int], dying: Callable[[Path, int], bool]) -> list[int]:
    """What is loaded after a save of step 3 that dies at each of the numbers; all goes well with step 4."""
    way.save(folder.with_name("fresh"), 4)
    alone = names(folder.with_name("fresh"))
    found = []
    for number in numbers:
        hit = _copied(folder, f"hit-{number}")
        assert dying(hit, number)
        found.append(way.loaded(hit))
        way.save(hit, 4)
        assert way.loaded(hit) == 4
        assert names(hit) == alone, f"something is left of what died at {number}"
        shutil.rmtree(hit)
    return found


@ways
def test_killed_between_two_calls(tmp_path: Path, way: Way, every: int) -> None:
    before_it(way, tmp_path / "before")
    calls = calls_of(partial(way.save, _copied(tmp_path / "before", "calls"), 3))
    completes = calls.index(COMPLETES)
    numbers = sorted({*range(0, len(calls), every), completes, completes + 1})
    found = steps_after(
        way, tmp_path / "before", numbers, lambda folder, number: dies(partial(way.save, folder, 3), before=number)
    )
    assert found == [1 if number <= completes else 3 for number in numbers], calls


@ways
def test_killed_half_way_through_a_write(tmp_path: Path, way: Way, every: int) -> None:
    before_it(way, tmp_path / "before")
    writes = calls_of(partial(way.save, _copied(tmp_path / "before", "calls"), 3)).count("pwritev")
    assert writes >= 4, "data, the part's manifest, the contents and the root manifest"
    numbers = range(writes) if every == 1 else [0, writes - 1]
    found = steps_after(
        way, tmp_path / "before", numbers, lambda folder, number: dies(partial(way.save, folder, 3), torn=number)
    )
    assert set(found) == {1}


def test_a_save_that_nobody_kills_comes_to_its_end(tmp_path: Path) -> None:
    way = WAYS["chunked"]
    calls = calls_of(partial(way.save, tmp_path / "calls", 1))
    assert not dies(partial(way.save, tmp_path / "saved", 1), before=len(calls))
    assert way.loaded(tmp_path / "saved") == 1
    assert calls.count(COMPLETES) == 1
