"""The mutants of the pure core: its modules, each with one change, and a sample of them that a seed chooses."""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import CodeType

from architecture.coverage_figures import CORE, IMPURE
from architecture.pages import ROOT
from mutation.operators import changes


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module.

    Attributes:
        path: of the module, from the repository's root.
        number: of the change among those of the module.
        line: where it is made.
        what: before and after.
    """

    path: str
    number: int
    line: int
    what: str

    @property
    def module(self) -> str:
        """As it is imported: the first folder is a portion of the namespace package."""
        return module_of(self.path)

    @property
    def part(self) -> str:
        """The part of the core that it belongs to."""
        return next(name for name, folder in CORE.items() if self.path.startswith(folder))

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def module_of(path: str) -> str:
    """Such as ``trainctl.core.units``."""
    return ".".join(Path(path).with_suffix("").parts[1:])


def sources() -> list[str]:
    """The modules of the pure core, from the repository's root."""
    found = (path.relative_to(ROOT) for folder in CORE.values() for path in (ROOT / folder).rglob("*.py"))
    return sorted(str(path) for path in found if not str(path).startswith(IMPURE))


def mutants(paths: Sequence[str]) -> list[Mutant]:
    """All mutants of some modules."""
    return [
        Mutant(path, number, change.line, change.what)
        for path in paths
        for number, change in enumerate(changes(ast.parse((ROOT / path).read_text())))
    ]


def sample(all_of_them: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """One of each stretch of equal length, so that every file gives as many as its share of all mutants is."""
    drawn, size = random.Random(seed), min(size, len(all_of_them))
    bounds = [len(all_of_them) * at // size for at in range(size + 1)] if size else []
    return [all_of_them[drawn.randrange(low, high)] for low, high in pairwise(bounds)]


def code(mutant: Mutant) -> CodeType:
    """What is run in place of the module."""
    tree = ast.parse((ROOT / mutant.path).read_text())
    list(changes(tree))[mutant.number].make()
    return compile(ast.fix_missing_locations(tree), str(ROOT / mutant.path), "exec")
