"""Whether silence says something about the agents, or about this controller: frozen, cut off, or just begun."""

from __future__ import annotations

from collections.abc import Callable

MAX_GAP_S = 1.0
"""Longer without a turn, and the controller itself was away."""
DEAF_S, DEAF_BEATS = 2.0, 2.0
"""Nobody at all heard for so long, and for so many heartbeats: less than any agent may be silent before it is lost."""


class Listening:
    """Silence is evidence only while somebody listens who can hear.

    Args:
        monotonic_s: the clock that silence is measured on.
        settle_s: after the start, a freeze or deafness no silence counts for so long, unless all report before.
        orphan_timeout_s: agents that hear no controller for so long end their workers; then silence is their end.

    Attributes:
        deaf: no agent is heard, though there are some: rather than that all died at once, this controller is cut off.
    """

    def __init__(self, monotonic_s: Callable[[], float], *, settle_s: float, orphan_timeout_s: float) -> None:
        self._monotonic_s = monotonic_s
        self._settle_s = settle_s
        self._orphan_timeout_s = orphan_timeout_s
        self._awake_s = self._heard_s = monotonic_s()
        self._settle_until_s = self._awake_s + settle_s
        self._settled = False
        self._ever = False
        self.deaf = False

    def heard(self) -> float:
        """Some agent said something; returns for how long nobody did, seconds, or 0 if no longer than agents pause."""
        now_s = self._monotonic_s()
        unheard_s, self._heard_s, self._ever = now_s - self._heard_s, now_s, True
        return unheard_s if unheard_s > MAX_GAP_S else 0.0

    def deaf_for_s(self) -> float:
        """Seconds since an agent was heard in this term; 0 if none ever was, or if this controller is not deaf."""
        return self._monotonic_s() - self._heard_s if self.deaf and self._ever else 0.0

    def awake(self, heartbeat_s: float, expected: Callable[[], bool]) -> bool:
        """This process runs; called often. True when silence counts from now on only.

        What began while nobody listened is no evidence: what the agents said meanwhile is still to be read.

        Args:
            heartbeat_s: how often agents report.
            expected: whether anybody should be heard.
        """
        now_s = self._monotonic_s()
        gap_s, self._awake_s = now_s - self._awake_s, now_s
        if gap_s > MAX_GAP_S:
            self._heard_s = now_s
        deaf = self._quiet(now_s - self._heard_s, heartbeat_s) and expected()
        hears_again, self.deaf = self.deaf and not deaf, deaf
        if gap_s <= MAX_GAP_S and not hears_again:
            return False
        self._settled = False
        self._settle_until_s = now_s + self._settle_s
        return True

    def settled(self, everybody: Callable[[], bool]) -> bool:
        """Whether silence counts: all have reported, or had the time to."""
        if not self._settled:
            self._settled = self._monotonic_s() >= self._settle_until_s or everybody()
        return self._settled and not self.deaf

    def unsettled_for_s(self, everybody: Callable[[], bool]) -> float:
        """Seconds until silence counts; 0 when it does."""
        left_s = self._settle_until_s - self._monotonic_s()
        return 0.0 if self.settled(everybody) else max(0.001, left_s)

    def _quiet(self, silent_s: float, heartbeat_s: float) -> bool:
        return max(DEAF_S, DEAF_BEATS * heartbeat_s) < silent_s <= self._orphan_timeout_s
