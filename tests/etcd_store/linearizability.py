"""Whether what clients saw could have happened one after the other: a search over orders of their operations.

Source: J. Wing and C. Gong, "Testing and verifying concurrent objects", JPDC 17, 1993; states that were tried are
remembered as in G. Lowe, "Testing for linearizability", CCPE 29, 2017. An operation whose outcome is unknown may have
happened at any time after it began, or never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

State = Any
"""Hashable."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as its client saw it.

    Attributes:
        began_s: when it was sent.
        ended_s: when it was answered; infinite if it never was.
        what: the method.
        argument: what was asked.
        result: what was answered, or ``UNKNOWN``.
    """

    began_s: float
    ended_s: float
    what: str
    argument: Any
    result: Any


Step = Callable[[State, Operation], set[State]]
"""The states that an operation with its result may leave behind; none if it cannot have had it. What happens by
itself before and after is included."""


def is_linearizable(history: Sequence[Operation], initial: State, step: Step) -> bool:
    """Whether some order, in which nothing comes before what was over when it began, explains all results."""
    operations = sorted(history, key=lambda operation: operation.began_s)
    certain = sum(1 << index for index, one in enumerate(operations) if one.result is not UNKNOWN)
    tried: set[tuple[int, State]] = set()
    todo: list[tuple[int, State]] = [(0, initial)]
    while todo:
        done, state = todo.pop()
        if done & certain == certain:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        for index in _next(operations, done):
            todo += [(done | 1 << index, after) for after in step(state, operations[index])]
    return False


def _next(operations: Sequence[Operation], done: int) -> list[int]:
    """Operations that may come next: begun before any other one that is left was over."""
    left = [index for index in range(len(operations)) if not done >> index & 1]
    first_over_s = min((operations[index].ended_s for index in left), default=math.inf)
    return [index for index in left if operations[index].began_s <= first_over_s]


@dataclass(frozen=True, slots=True)
class Named:
    """One name and the newest job that has it: the model of jobs.

    Attributes:
        job: what tells it from others; empty: there never was one.
        live: it has not ended, and nobody wants it to; ``ending``, ``ended``.
        most: nodes that it may take.
    """

    job: str = ""
    phase: str = "absent"
    most: int = 0


def step_of_name(state: Named, operation: Operation) -> set[Named]:
    """The model's transitions; a job that is ending ends by itself."""
    befores = {state} | ({Named(state.job, "ended", state.most)} if state.phase == "ending" else set())
    return {after for before in befores for after in _apply(before, operation)}


def _apply(state: Named, operation: Operation) -> set[Named]:
    result, exists = operation.result, state.phase in ("live", "ending")
    outcome: tuple[Any, set[Named]]
    if operation.what == "create":
        outcome = ("exists", {state}) if exists else ("ok", {Named(operation.argument, "live", 1)})
    elif operation.what == "cancel":
        if state.phase == "absent":
            outcome = ("absent", {state})
        else:
            ending = {Named(state.job, phase, state.most) for phase in ("ending", "ended")}
            outcome = ("ok", ending if state.phase == "live" else {state})
    elif operation.what == "scale":
        if state.phase == "absent":
            outcome = ("absent", {state})
        elif state.phase == "live":
            outcome = ("ok", {Named(state.job, "live", operation.argument)})
        else:
            outcome = ("refused", {state})
    else:
        outcome = ("absent" if state.phase == "absent" else (state.job, state.phase, state.most), {state})
    wanted, after = outcome
    return after if result is UNKNOWN or result == wanted else set()
