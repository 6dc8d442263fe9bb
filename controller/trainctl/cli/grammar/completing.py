"""What may come next on a command line: pure, from the grammar alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainctl.cli.grammar.forms import COLUMNS, FORMS, JSONPATH
from trainctl.cli.grammar.outline import is_group

_KINDS: Mapping[str, str] = {"NAME": "job", "NAME|PATH": "job", "NODE": "node", "CONTEXT": "context"}


@dataclass(frozen=True, slots=True)
class Names:
    """Names that only somebody else knows: of jobs, nodes or contexts, that begin so."""

    kind: str
    beginning: str


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str] | Names:
    """What the last of ``words`` may become; the others stand before it. Empty where a file may stand."""
    *before, current = words or [""]
    place = _walk(parser, before)
    if place.awaiting is not None:
        return _values(place.awaiting, current)
    if current.startswith("-"):
        flag, equals, value = current.partition("=")
        option = place.parser._option_string_actions.get(flag)
        if equals and option is not None:
            found = _values(option, value)
            return [f"{flag}={each}" for each in found] if isinstance(found, list) else found
        return sorted(each for each in place.parser._option_string_actions if each.startswith(current))
    positionals = [action for action in place.parser._actions if not action.option_strings]
    if place.given < len(positionals):
        return _values(positionals[place.given], current)
    return []


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the cursor is: in which command, behind how many positionals, perhaps behind a flag that takes a value."""

    parser: argparse.ArgumentParser
    given: int
    awaiting: argparse.Action | None


def _walk(parser: argparse.ArgumentParser, words: Sequence[str]) -> _Place:
    given, awaiting = 0, None
    for word in words:
        if awaiting is not None:
            awaiting = None
            continue
        option = parser._option_string_actions.get(word)
        if option is not None:
            awaiting = option if option.nargs is None else None
            continue
        if word.startswith("-") and word != "-":
            continue
        child = _children(parser).get(word)
        if child is not None:
            parser, given = child, 0
        else:
            given += 1
    return _Place(parser, given, awaiting)


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [action for action in parser._actions if is_group(action)]
    return {name: child for group in groups for name, child in group.choices.items()}


def _values(action: argparse.Action, current: str) -> list[str] | Names:
    if action.choices is not None:
        return [name for name in map(str, action.choices) if name.startswith(current) and not name.startswith("_")]
    if action.dest == "output":
        more = [word for word in str(action.help).rpartition(": ")[2].split("|") if "=" not in word]
        return [form for form in dict.fromkeys((*FORMS, JSONPATH, COLUMNS, *more)) if form.startswith(current)]
    kind = (
        "context"
        if action.dest == "context"
        else _KINDS.get(str(action.metavar))
        if not action.option_strings
        else None
    )
    if action.option_strings and "--job" in action.option_strings:
        kind = "job"
    return Names(kind, current) if kind is not None else []
