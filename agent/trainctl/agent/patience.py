"""How long a controller of several may say nothing before its agents ask the others."""

from __future__ import annotations

from trainctl.core.pauses import doubled_s

LEADER_SILENT_S = 3.0
FIRST_WORD_S = 1.0


class Patience:
    """One agent's. A leader that it hears gets longer than one that has not said a word yet: that one may be frozen.

    A controller that takes in many agents at once may need longer for its first word: each round in which nobody said
    any doubles the time.
    """

    def __init__(self) -> None:
        self._rounds = 0

    def heard(self) -> None:
        """A controller said something."""
        self._rounds = 0

    def nobody_answered(self) -> None:
        """All were asked once."""
        self._rounds += 1

    def limit_s(self, *, connected: bool, heartbeat_s: float) -> float:
        """Longest silence, of one that said something on this connection or of one that did not."""
        leader_s = max(LEADER_SILENT_S, 4 * heartbeat_s)
        return leader_s if connected else doubled_s(FIRST_WORD_S, self._rounds, leader_s)
