"""What came of each mutant, kept while it must be true: what a test killed stays so while that test stays as it is."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from mutation.mutants import Mutant
from mutation.passing import KEPT, Passing, shared_state, state_of, test_files

SURVIVED, LATE = "", "(took too long)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a mutant.

    Attributes:
        by: the test that failed, ``SURVIVED`` or ``LATE``.
        tests: how many there were that pass its line.
        state: of what the verdict depends on.
    """

    by: str
    tests: int
    state: str


def state(by: str) -> str:
    """Of what a verdict depends on: on all tests if none failed."""
    file = re.split("::| ", by)[0]
    if file in test_files():
        return state_of(file)
    return " ".join([shared_state()[:24], *(() if by else (state_of(one)[:6] for one in test_files()))])


class Verdicts:
    """Those of earlier runs that are still true, and new ones."""

    def __init__(self) -> None:
        self._file = KEPT / "verdicts.json"
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        found = {key: Verdict(**one) for key, one in kept.items()}
        states = {by: state(by) for by in {one.by for one in found.values()}}
        self._found = {key: one for key, one in found.items() if one.state == states[one.by]}

    def get(self, mutant: Mutant) -> Verdict | None:
        """What is known of a mutant."""
        return self._found.get(_key(mutant))

    def add(self, mutant: Mutant, by: str, passing: Passing) -> Verdict:
        """Keeps what came of a mutant."""
        self._found[_key(mutant)] = verdict = Verdict(by, sum(map(len, passing.tests(mutant).values())), state(by))
        self._file.write_text(json.dumps({key: asdict(one) for key, one in self._found.items()}))
        return verdict


def _key(mutant: Mutant) -> str:
    return f"{mutant.path} {mutant.number} {mutant.what}"
