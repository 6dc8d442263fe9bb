"""``-l team=nlp,!old``: which labels something has to have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainctl.cli.query.errors import ExpressionError

_TERM = re.compile(r"\s*(?P<absent>!)?(?P<key>[\w./-]+)\s*(?:(?P<operator>==?|!=)\s*(?P<value>[\w.-]*))?\s*")
_HINT = "for example -l team=nlp,stage!=test,owner,!old"


@dataclass(frozen=True, slots=True)
class Term:
    """One requirement: a label has a value, has another one, is there at all (``value`` is None), or is not."""

    key: str
    value: str | None
    wanted: bool


def read_labels(text: str) -> tuple[Term, ...]:
    """The requirements of a selector.

    Raises:
        ExpressionError: it is none; says where.
    """
    terms: list[Term] = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None or (match["absent"] and match["operator"]):
            raise ExpressionError(text, position, "expected key=value, key!=value, key or !key", hint=_HINT)
        negated = bool(match["absent"]) or match["operator"] == "!="
        terms.append(Term(match["key"], match["value"], not negated))
        position = match.end()
        if position == len(text):
            return tuple(terms)
        if text[position] != ",":
            raise ExpressionError(text, position, f"expected a comma, found {text[position]!r}", hint=_HINT)
        position += 1


def fits(labels: Mapping[str, str], terms: Sequence[Term]) -> bool:
    """Whether the labels meet all requirements."""
    return all(
        ((term.key in labels) if term.value is None else labels.get(term.key) == term.value) == term.wanted
        for term in terms
    )
