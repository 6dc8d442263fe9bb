"""An expression, read: a path is a sequence of steps, each of which leads from some values to others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """A field of a mapping."""

    name: str


@dataclass(frozen=True, slots=True)
class Everything:
    """All fields of a mapping, all entries of a list."""


@dataclass(frozen=True, slots=True)
class Below:
    """Every value at any depth that has this name; all of them if it is empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Some entries of a list, as in Python."""

    begin: int | None
    end: int | None
    step: int | None


@dataclass(frozen=True, slots=True)
class Index:
    """One entry of a list; negative ones count from its end."""

    number: int


@dataclass(frozen=True, slots=True)
class Filter:
    """The entries of a list for which the predicate holds."""

    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Union:
    """All that any of the steps leads to, in their order."""

    steps: tuple[Step, ...]


Step = Name | Everything | Below | Slice | Index | Filter | Union


@dataclass(frozen=True, slots=True)
class Path:
    """Steps from the value that is looked at."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, number, true, false or null."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """``left OP right``; without an operator: whether ``left`` leads to anything that is not false or empty."""

    left: Path | Literal
    operator: str
    right: Path | Literal | None


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class Every:
    """All of the parts hold."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """One of the parts holds."""

    parts: tuple[Predicate, ...]


Predicate = Comparison | Not | Every | Any
