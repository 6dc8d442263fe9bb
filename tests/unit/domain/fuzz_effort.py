"""How hard a fuzz test tries: the same few examples each time, or as many new ones as somebody has time for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis

EXAMPLES, SEED = "TRAINCTL_FUZZ_EXAMPLES", "TRAINCTL_FUZZ_SEED"
_USUAL_EXAMPLES = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a run of the fuzz tests does.

    Attributes:
        examples: of each test.
        seed: they follow from it; None: they are the same in every run.
    """

    examples: int = _USUAL_EXAMPLES
    seed: int | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Effort:
        """What the environment asks for; a seed is drawn where only a number of examples is given.

        Raises:
            ValueError: a variable is no positive number.
        """
        examples, seed = (_number(environment, name) for name in (EXAMPLES, SEED))
        if examples is None and seed is None:
            return cls()
        return cls(
            examples=_USUAL_EXAMPLES if examples is None else examples,
            seed=secrets.randbelow(2**32) + 1 if seed is None else seed,
        )

    def __call__(self, test: Callable[..., None]) -> Any:
        """A test of ``hypothesis`` with that many examples, drawn so."""
        bounded = hypothesis.settings(
            max_examples=self.examples,
            derandomize=self.seed is None,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )(test)
        return bounded if self.seed is None else hypothesis.seed(self.seed)(bounded)

    def __str__(self) -> str:
        if self.seed is None:
            return f"{self.examples} examples, always the same"
        return f"{self.examples} examples; to repeat them: {SEED}={self.seed} {EXAMPLES}={self.examples}"


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{name}: expected a positive number, found {text!r}")
    return int(text) if text else None
