"""What a loop does that is allowed and probably not meant; each is told as an event of the job."""

from __future__ import annotations

from collections.abc import Callable

_TOLD_REPEATS = frozenset(10**power for power in range(9))


class Oddities:
    """Remembers what is needed to notice them.

    Args:
        tell: takes a notice for people.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._step = 0
        self._repeats = 0
        self._why = ""

    def left(self, step: int, error: Exception) -> None:
        """An exception of the loop's own left ``step``: if the loop catches it, the step begins again."""
        self._repeats = self._repeats + 1 if step == self._step else 1
        self._step, self._why = step, f"{type(error).__name__}: {error}".removesuffix(": ")

    def begun(self, step: int) -> None:
        """``step`` begins, for the first time or again."""
        if step == self._step and self._repeats in _TOLD_REPEATS:
            times = "again" if self._repeats == 1 else f"again, by now {self._repeats} times"
            self._tell(
                f"step {step} is begun {times}: the loop caught what left `with session.step()`, which was {self._why}"
            )

    def entered(self, *, rank: int, ranks: int, micro_batches: int) -> None:
        """A generation of ``ranks`` was entered, whose steps have this many micro-batches; rank 0 tells."""
        if rank == 0 and ranks > micro_batches:
            self._tell(
                f"{ranks - micro_batches} of {ranks} workers have nothing to do: a step has {micro_batches} "
                "micro-batches; raise BatchSpec.micro_batches, or scale the job down"
            )
