"""How long a storage is waited for: pure figures, which ``calls`` carries out."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.core.pauses import doubled_s, drawn_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Bounds on the waiting for a storage that is not on this machine.

    Attributes:
        first_s: longest wait before the second try; it doubles with every further one.
        longest_s: longest wait at all.
        deadline_s: after so long nothing is tried again.
        answer_s: what one try has for an answer.
        slowest_bytes_per_s: what one try has beside that, by the bytes that travel.
        word_s: after so long, and then as often, the log says that it still goes on.
    """

    first_s: float = 0.2
    longest_s: float = 5.0
    deadline_s: float = 45.0
    answer_s: float = 20.0
    slowest_bytes_per_s: float = 1 << 20
    word_s: float = 10.0

    def limit_s(self, size_bytes: int) -> float:
        """What one try has in which ``size_bytes`` travel."""
        return self.answer_s + size_bytes / self.slowest_bytes_per_s

    def silent_s(self, size_bytes: int) -> float:
        """How long one try, in which ``size_bytes`` travel, may go on before the log says so."""
        return self.word_s + size_bytes / self.slowest_bytes_per_s

    def wait_s(self, tries: int, spent_s: float, chance: float) -> float | None:
        """How long to wait before the next try; None: give up.

        Args:
            tries: how many failed, at least one.
            spent_s: since the first began.
            chance: from 0 up to 1, another one each time: ranks that failed together do not come back together.
        """
        wait_s = drawn_s(doubled_s(self.first_s, tries - 1, self.longest_s), chance)
        return wait_s if spent_s + wait_s < self.deadline_s else None
