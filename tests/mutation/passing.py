"""Which tests pass which lines: looked at once for every file of tests, and again when it or what it runs changed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from architecture.coverage_figures import CORE
from architecture.messages import PORTIONS
from architecture.pages import ROOT
from mutation.mutants import Mutant
from mutation.trial import passes, run

KEPT = ROOT / ".mutants"
FOLDERS = ("core", "domain", "plan", "checkpoint")
"""Of tests/unit: where the core's own tests are; what others notice of it does not count."""
_LONGEST_S = 300.0
_MOST_S = 10.0
"""So long may the tests of a mutant take, quickest first; what only later ones would notice survives."""


def test_files() -> list[str]:
    """The files of tests, from the repository's root."""
    found = (path for folder in FOLDERS for path in (ROOT / "tests" / "unit" / folder).glob("test_*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found)


@cache
def shared_state() -> str:
    """Changes with the product and with what tests share."""
    product = (path for portion in PORTIONS for path in (ROOT / portion).rglob("*.py"))
    shared = (path for path in (ROOT / "tests" / "unit").rglob("*.py") if not path.name.startswith("test_"))
    digest = hashlib.sha256()
    for path in sorted((*product, *shared, ROOT / "tests" / "conftest.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def state_of(file: str) -> str:
    """Changes with a file of tests, too."""
    return hashlib.sha256(shared_state().encode() + (ROOT / file).read_bytes()).hexdigest()[:24]


@dataclass(slots=True)
class Passing:
    """What is known of the tests.

    Attributes:
        seconds: that each test takes, by its id.
        lines: of each module, the tests that pass each line.
        broken: tests that fail without any change, or when one looks which lines they pass, as those of speed may; they
            are not asked.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    broken: list[str] = field(default_factory=list)

    def take(self, answer: Mapping[str, Any]) -> None:
        """Adds what was found of one file of tests."""
        names = list(answer["seconds"])
        self.seconds |= answer["seconds"]
        self.broken += answer["broken"]
        for path, lines in answer["lines"].items():
            for line, numbers in lines.items():
                self.lines[path][int(line)] |= {names[number] for number in numbers} - set(answer["broken"])

    def tests(self, mutant: Mutant) -> dict[str, dict[str, float]]:
        """Those that may notice a mutant, with the time that each takes, by file: those first that are most about it.

        They pass its line; where that is run by an import alone: another line of the module, or their file imports it;
        where there are none: a line of a module that imports it.
        """
        lines = self.lines.get(mutant.path, {})
        found = lines.get(mutant.line, set())
        named = set[str]() if found else {one for one in self.seconds if _imports(_file(one), mutant.module)}
        named -= set(self.broken)
        found = found or named.union(*lines.values())
        for path in () if found else importers(mutant.module):
            found = found.union(*self.lines.get(path, {}).values())
        files, left_s = defaultdict[str, dict[str, float]](dict), _MOST_S
        for name in sorted(found, key=lambda one: (one not in named, self.seconds[one], one)):
            left_s -= self.seconds[name]
            if left_s < 0 and files:
                break
            files[_file(name)][name] = self.seconds[name]
        all_of_it = Counter(map(_file, self.seconds))
        about = {file: round(len(tests) / all_of_it[file], 1) for file, tests in files.items()}
        return dict(sorted(files.items(), key=lambda one: (-about[one[0]], sum(one[1].values()))))


@cache
def _imports(file: str, module: str) -> bool:
    path = ROOT / file
    return path.is_file() and any(word in path.read_text() for word in _words(module))


def _words(module: str) -> tuple[str, ...]:
    package, _, name = module.rpartition(".")
    return f"from {module} import", f"import {module}", f"from {package} import {name}"


def _file(test: str) -> str:
    return test.partition("::")[0]


@cache
def importers(module: str) -> tuple[str, ...]:
    """The core's modules that name another one in an import."""
    paths = (path for folder in CORE.values() for path in (ROOT / folder).rglob("*.py"))
    return tuple(str(one.relative_to(ROOT)) for one in paths if any(word in one.read_text() for word in _words(module)))


def known(server: ForkServerContext, processes: int) -> Iterator[Mapping[str, Any]]:
    """What every file of tests passes, from where it is kept or looked at now."""
    (KEPT / "passed").mkdir(parents=True, exist_ok=True)

    def look(file: str) -> Mapping[str, Any]:
        kept = KEPT / "passed" / f"{Path(file).stem}-{state_of(file)}.json"
        if not kept.exists():
            found = run(server, passes, file, tuple(CORE.values()), limit_s=_LONGEST_S)
            if found is None:
                return {"seconds": {}, "lines": {}, "broken": [file]}
            for old in kept.parent.glob(f"{Path(file).stem}-*.json"):
                old.unlink()
            kept.write_text(json.dumps(found))
        again: Mapping[str, Any] = json.loads(kept.read_text())
        return again

    with ThreadPoolExecutor(processes) as pool:
        yield from pool.map(look, test_files())
