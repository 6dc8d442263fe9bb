"""The forms of output that ``-o`` names; apart from ``output``, so that the grammar loads no protobuf."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted

FORMS = ("table", "wide", "name", "json", "yaml")
JSONPATH = "jsonpath="
COLUMNS = "custom-columns="


def output_form(text: str, more: Sequence[str] = ()) -> str:
    """Checks what stands behind ``-o``; ``more`` are the words that only this command knows.

    Raises:
        UsageError: it is no form of output, or its expression cannot be read.
    """
    known = (*FORMS, *more)
    if text in known:
        return text
    try:
        if text.startswith(JSONPATH):
            from trainctl.cli.query.template import read_template

            read_template(text.removeprefix(JSONPATH))
            return text
        if text.startswith(COLUMNS):
            from trainctl.cli.query.columns import read_columns

            read_columns(text.removeprefix(COLUMNS))
            return text
    except UsageError as error:
        raise UsageError(f"-o {text.partition('=')[0]}: {error}", hint=error.hint) from error
    near = difflib.get_close_matches(text.partition("=")[0], [*known, "jsonpath", "custom-columns"], n=1)
    raise UsageError(
        f"-o: expected {', '.join(known)}, jsonpath=EXPR or custom-columns=A:.x,B:.y, found {quoted(text)}"
        + (f' (did you mean "{near[0]}"?)' if near else ""),
        hint="for example -o json, -o jsonpath=.status.phase",
    )
