"""What a loop does that is allowed and probably not meant; each is told as an event of the job."""

from __future__ import annotations

from collections.abc import Callable

from trainctl.parallel.replica.rest import Rest

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
        self._told: set[str] = set()

    def changed_between(self, rest: Rest | None) -> None:
        """Before a step begins: registered objects and modules are to be what they were when the last one ended."""
        if rest is None:
            return
        for name in (*rest.changed_objects(), *rest.changed_modules()):
            self._tell_once(
                f"{name!r} was changed between two steps: what was saved or copied at the step's end is without it, "
                "and it may happen twice or never; change objects inside `with session.step()`, modules in "
                "register(after_step=...)"
            )
        rest.note_writes()

    def changed_inside(self, rest: Rest | None) -> None:
        """Before a step is committed: its repetition would change modules a second time."""
        for name in rest.changed_modules() if rest is not None else ():
            self._tell_once(
                "buffers of the model change in the forward pass, as those of BatchNorm do: each rank has others, and "
                "after a loss they do not fit together; use a norm without running statistics"
                if name == "model"
                else f"module {name!r} was changed inside `with session.step()`: if the step is repeated that happens "
                "twice; change it in register(after_step=...)"
            )

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

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
