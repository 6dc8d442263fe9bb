"""What happens to elements on their way from a source key to a different destination key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trainctl.checkpoint.layout.key import StateKey


@dataclass(frozen=True, slots=True)
class Cast:
    """Each element is converted, rounding to nearest even, to ``dtype``."""

    dtype: str


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """The element times ``weight`` is added to the sum over all terms of the destination.

    Copy plans have it; a load refuses it, since no checkpoint is loaded so.
    """

    weight: float


Combine = Cast | WeightedSum


class Term(NamedTuple):
    """One source of a destination key that is not simply copied from its equal."""

    key: StateKey
    combine: Combine | None = None
