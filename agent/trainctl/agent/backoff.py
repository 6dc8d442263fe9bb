"""Pauses between tries that grow and do not march in step with other agents'."""

from __future__ import annotations

from random import Random


class Backoff:
    """Decorrelated jitter: each pause is drawn between ``base_s`` and three times the former one, up to ``cap_s``.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, chance: Random | None = None, *, base_s: float = 0.1, cap_s: float = 2.0) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = chance or Random()
        self._last_s = base_s
        self._asked_s = 0.0

    def wait_at_least(self, pause_s: float) -> None:
        """The other side said when it wants to be asked again: the next pause is no shorter, and drawn, too."""
        self._asked_s = pause_s

    def next_s(self) -> float:
        """The next pause."""
        self._last_s = min(self._cap_s, self._random.uniform(self._base_s, 3 * self._last_s))
        asked_s, self._asked_s = self._asked_s, 0.0
        return max(self._last_s, asked_s * self._random.uniform(1.0, 1.5)) if asked_s else self._last_s

    def reset(self) -> None:
        """It worked: the next pause is short again."""
        self._last_s = self._base_s
