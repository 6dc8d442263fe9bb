"""Reads paths and predicates, by recursive descent; whatever is wrong is said with its position.

::

    path       = ["$" | "@"] { "." name | ".*" | ".." name | "[" selector { "," selector } "]" }
    selector   = "*" | integer | [integer] ":" [integer] [":" [integer]] | string | "?(" predicate ")"
    predicate  = all { "||" all }             all  = one { "&&" one }
    one        = "!" one | "(" predicate ")" | operand [ operator operand ]
    operator   = "==" | "!=" | "<=" | ">=" | "<" | ">" | "=~"

Source: the JSONPath of kubectl, with ``&&``, ``||``, ``!`` and ``=~`` of RFC 9535 and its relatives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from trainctl.cli.query.ast import (
    Any,
    Below,
    Comparison,
    Every,
    Everything,
    Filter,
    Index,
    Literal,
    Name,
    Not,
    Path,
    Predicate,
    Slice,
    Step,
    Union,
)
from trainctl.cli.query.errors import ExpressionError

_NAME = re.compile(r"(?:[A-Za-z0-9_/-]|\\.)+")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?[1-9]\d*)?)?")
_INTEGER = re.compile(r"-?\d{1,9}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
OPERATORS = ("==", "!=", "<=", ">=", "=~", "<", ">")
MAX_DEPTH = 50


def read_path(text: str) -> Path:
    """The path that is all of ``text``.

    Raises:
        ExpressionError: it is none.
    """
    reader = Reader(text)
    path = reader.path()
    reader.finish("a step such as .name or [0]")
    return path


def read_predicate(text: str) -> Predicate:
    """The predicate that is all of ``text``.

    Raises:
        ExpressionError: it is none.
    """
    reader = Reader(text)
    predicate = reader.predicate()
    reader.finish("&& or ||")
    return predicate


class Reader:
    """A text and how far it has been read."""

    def __init__(self, text: str, position: int = 0) -> None:
        self.text = text
        self.position = position
        self._depth = 0

    def fail(self, expected: str) -> NoReturn:
        """Says what should stand here.

        Raises:
            ExpressionError: always.
        """
        rest = self.text[self.position : self.position + 12]
        found = repr(rest) if rest else "the end"
        raise ExpressionError(self.text, self.position, f"expected {expected}, found {found}")

    def finish(self, expected: str) -> None:
        """Nothing may be left."""
        self.space()
        if self.position < len(self.text):
            self.fail(expected)

    def space(self) -> None:
        """Skips white space."""
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def at(self, token: str) -> bool:
        """Takes ``token`` if it stands here."""
        found = self.text.startswith(token, self.position)
        self.position += len(token) if found else 0
        return found

    def need(self, token: str) -> None:
        """Takes ``token``, which has to stand here."""
        self.space()
        if not self.at(token):
            self.fail(repr(token))

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Takes what the pattern matches here."""
        found = pattern.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
        return found

    def path(self) -> Path:
        """Steps, as far as they go."""
        self.space()
        begin = self.position
        if not self.at("$"):
            self.at("@")
        steps: list[Step] = []
        while True:
            if self.at(".."):
                name = self.match(_NAME)
                if name is None and not self.at("*"):
                    self.fail("a name behind ..")
                steps.append(Below(_plain(name[0]) if name is not None else ""))
            elif self.at("."):
                name = self.match(_NAME)
                if name is not None:
                    steps.append(Name(_plain(name[0])))
                elif self.at("*"):
                    steps.append(Everything())
                elif steps or self._goes_on():
                    self.fail("a name behind the dot")
            elif self.at("["):
                steps.append(self._bracket())
            else:
                break
        if self.position == begin:
            name = self.match(_NAME)  # people leave out the first dot
            if name is None:
                self.fail("a path such as .status.phase")
            return Path((Name(_plain(name[0])), *self._rest().steps))
        return Path(tuple(steps))

    def _rest(self) -> Path:
        return self.path() if self.text[self.position : self.position + 1] in (".", "[") else Path(())

    def _goes_on(self) -> bool:
        """Whether anything of a path follows a lone dot, which by itself is the value that is looked at."""
        following = self.text[self.position : self.position + 1]
        return bool(following) and following not in "[}) \t"

    def _bracket(self) -> Step:
        found = [self._selector()]
        self.space()
        while self.at(","):
            found.append(self._selector())
            self.space()
        self.need("]")
        return found[0] if len(found) == 1 else Union(tuple(found))

    def _selector(self) -> Step:
        self.space()
        if self.at("*"):
            return Everything()
        if self.at("?"):
            self.need("(")
            predicate = self.predicate()
            self.need(")")
            return Filter(predicate)
        if self.text[self.position : self.position + 1] in ("'", '"'):
            return Name(self.string())
        parts = self.match(_SLICE)
        if parts is not None:
            begin, end, step = (int(part) if part else None for part in parts.groups())
            return Slice(begin, end, step)
        number = self.match(_INTEGER)
        if number is None:
            self.fail("an index, a range such as 0:2, *, 'name' or ?(condition)")
        return Index(int(number[0]))

    def string(self) -> str:
        """A text in quotes; a backslash takes the next character as it is, or makes a new line or a tab."""
        begin, quote = self.position, self.text[self.position]
        self.position += 1
        characters: list[str] = []
        while self.position < len(self.text):
            character = self.text[self.position]
            self.position += 1
            if character == quote:
                return "".join(characters)
            if character == "\\" and self.position < len(self.text):
                character = {"n": "\n", "t": "\t"}.get(self.text[self.position], self.text[self.position])
                self.position += 1
            characters.append(character)
        raise ExpressionError(self.text, begin, f"this {quote} is never closed")

    def predicate(self) -> Predicate:
        """Alternatives of conditions."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} conditions in each other")
        parts = [self._all()]
        self.space()
        while self.at("||"):
            parts.append(self._all())
            self.space()
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Predicate:
        parts = [self._one()]
        self.space()
        while self.at("&&"):
            parts.append(self._one())
            self.space()
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Predicate:
        negated = False
        self.space()
        while self.at("!"):
            negated = not negated
            self.space()
        if self.at("("):
            part = self.predicate()
            self.need(")")
        else:
            part = self._comparison()
        return Not(part) if negated else part

    def _comparison(self) -> Predicate:
        left = self._operand()
        self.space()
        for operator in OPERATORS:
            if self.at(operator):
                begin = self.position
                right = self._operand()
                if operator == "=~":
                    self._check_pattern(right, begin)
                return Comparison(left, operator, right)
        if self.text[self.position : self.position + 1] == "=":
            self.fail(f"one of {' '.join(OPERATORS)}")
        return Comparison(left, "", None)

    def _check_pattern(self, pattern: Path | Literal, position: int) -> None:
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            raise ExpressionError(self.text, position, "expected a regular expression in quotes behind =~")
        try:
            re.compile(pattern.value)
        except re.error as error:
            raise ExpressionError(self.text, position, f"not a regular expression: {error}") from error

    def _operand(self) -> Path | Literal:
        self.space()
        if self.text[self.position : self.position + 1] in ("'", '"'):
            return Literal(self.string())
        number = self.match(_NUMBER)
        if number is not None:
            return Literal(float(number[0]) if set(number[0]) & set(".eE") else int(number[0]))
        for word, value in _WORDS.items():
            if re.compile(rf"{word}\b").match(self.text, self.position):
                self.position += len(word)
                return Literal(value)
        return self.path()


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)
