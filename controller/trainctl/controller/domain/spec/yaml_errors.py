"""What PyYAML complains about, in words for somebody who wrote a job file, at the place where they will look."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from trainctl.core.errors import Problem

_QUOTES = "a text that begins with {} needs quotes"
_INDENTATION = "keys of one level begin in the same column; a bracket or quote above may also end too early"
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("'\\t'", "", "a tab; YAML is indented with spaces"),
    ("undefined alias", "", f"* refers to an &anchor further up; {_QUOTES.format('*')}"),
    ("duplicate anchor", "this &anchor is defined a second time", "an anchor is defined once"),
    ("scanning an alias", "* here begins an alias, and no name follows", _QUOTES.format("*")),
    ("scanning an anchor", "& here begins an anchor, and no name follows", _QUOTES.format("&")),
    ("ing a tag", "", _QUOTES.format("!")),
    ("scanning a block scalar", "", _QUOTES.format("| or >")),
    ("unknown escape character", "", "in double quotes a backslash begins an escape; single quotes take it as it is"),
    ("cannot start any token", "", _QUOTES.format("it")),
    ("mapping values are not allowed", "", 'a text with ": " in it needs quotes; else look at the indentation'),
    (
        "sequence entries are not allowed",
        "",
        "a list begins on a line of its own; a text that begins with - needs quotes",
    ),
    (
        "could not find expected ':'",
        "",
        "a key needs a colon and a space after it; or is a quote or bracket open above?",
    ),
    ("<block end>, but found '}'", "this closes a brace that was never opened", ""),
    ("<block end>, but found ']'", "this closes a bracket that was never opened", ""),
    (
        "<block end>, but found '<scalar>'",
        "something follows a value that has ended",
        "a text with quotes in it needs others",
    ),
    ("<block end>", "this line is not indented like those it belongs to", _INDENTATION),
    (
        "'<document start>'",
        "something follows the end of the job",
        "or the file begins with %, which is for YAML itself",
    ),
    ("the node content", "a value is missing before this", ""),
)
"""What is found in PyYAML's words (the first that is), what to say instead (empty: those words), and what to do."""

_OPENERS: Mapping[str, str] = {"quoted scalar": "quote", "flow sequence": "bracket [", "flow mapping": "brace {"}


def yaml_problem(error: yaml.MarkedYAMLError) -> Problem:
    """The error as a problem of the file; a bracket or quote that is never closed is shown where it opens."""
    problem = (error.problem or "").replace("'\\x00'", "the end of the file")
    context = error.context or ""
    mark = error.problem_mark or error.context_mark
    opener = next((opener for part, opener in _OPENERS.items() if part in context), "")
    words = f"{context}, {problem}"
    _, instead, advice = next((meaning for meaning in _MEANINGS if meaning[0] in words), ("", "", ""))
    if opener and error.context_mark is not None:
        if "stream end" in problem or "end of stream" in problem:
            mark, instead, advice = error.context_mark, f"the {opener} is opened here and never closed", ""
        elif "expected ',' or" in problem:
            where = f"{error.context_mark.line + 1}:{error.context_mark.column + 1}"
            advice = f"a comma is missing, or the {opener} opened at {where} is not closed"
    if "expected ':'" in problem:
        mark = error.context_mark or mark  # the key itself; PyYAML notices on the next line
    message = f"not YAML: {instead or problem}" + (f" ({advice})" if advice else "")
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Problem(path="", message=message, line=line, column=column)
