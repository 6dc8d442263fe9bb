"""What PyYAML complains about, in words for somebody who wrote a job file, at the place where they will look."""

from __future__ import annotations

import yaml

from trainctl.core.errors import Problem

_TAB = "'\\t'"
_END = "'\\x00'"
_OPENED = "is opened here and never closed"
_ADVICE: tuple[tuple[str, str], ...] = (
    (_TAB, "a tab; YAML is indented with spaces"),
    ("undefined alias", "* refers to an &anchor further up; a text that begins with * needs quotes"),
    ("scanning an alias", "a text that begins with * needs quotes"),
    ("scanning an anchor", "a text that begins with & needs quotes"),
    ("scanning a tag", "a text that begins with ! needs quotes"),
    ("scanning a block scalar", "a text that begins with | or > needs quotes"),
    ("unknown escape character", "in double quotes a backslash begins an escape; single quotes take it as it is"),
    ("cannot start any token", "a text that begins with it needs quotes"),
    ("mapping values are not allowed", 'a text with ": " in it needs quotes; else look at the indentation'),
    ("sequence entries are not allowed", "a list begins on a line of its own; a text that begins with - needs quotes"),
    ("could not find expected ':'", "a key needs a colon and a space after it; or is a quote or bracket open above?"),
    ("expected <block end>", "keys of one level begin in the same column, and nothing follows a closing quote"),
    ("expected ',' or", "the entries of a list in [] or a mapping in {} are separated by commas"),
    ("duplicate anchor", "an &anchor is defined once"),
)
"""What is found in PyYAML's words (the first that is), and what to do about it."""


def yaml_problem(error: yaml.MarkedYAMLError) -> Problem:
    """The error as a problem of the file; a bracket or quote that is never closed is shown where it opens."""
    problem, context = (error.problem or "").replace(_END, "the end of the file"), error.context or ""
    mark, message = error.problem_mark or error.context_mark, problem
    if error.context_mark is not None and ("stream end" in problem or "end of stream" in problem):
        opener = _opener(context)
        if opener:
            mark, message = error.context_mark, f"{opener} {_OPENED}"
    words = f"{context}, {problem}"
    advice = next((advice for part, advice in _ADVICE if part in words), "") if _OPENED not in message else ""
    message = f"not YAML: {message}" + (f" ({advice})" if advice else "")
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Problem(path="", message=message, line=line, column=column)


def _opener(context: str) -> str:
    parts = {"quoted scalar": "a quote", "flow sequence": "the bracket [", "flow mapping": "the brace {"}
    return next((opener for part, opener in parts.items() if part in context), "")
