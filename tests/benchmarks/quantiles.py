"""One meaning of "95 of 100" for all figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of them does not exceed; the median proper for a half."""
    if share == 0.5:
        return statistics.median(samples)
    return sorted(samples)[math.ceil(share * len(samples)) - 1]
