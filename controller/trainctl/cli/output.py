"""Messages as JSON or YAML: the API's names, whole numbers as numbers, times as RFC 3339."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from trainctl.cli.context import Context
from trainctl.cli.grammar.forms import COLUMNS, JSONPATH
from trainctl.cli.terminal.style import table as aligned
from trainctl.cli.terminal.times import rfc3339
from trainctl.core.plain import is_list

_UNIX_TIMES = frozenset(
    {
        "create_time_s",
        "start_time_s",
        "end_time_s",
        "time_s",
        "since_s",
        "started_s",
        "committed_s",
        "figures_as_of_s",
        "created_s",
        "expires_s",
        "revoked_s",
        "done_s",
        "at_s",
    }
)


def plain(message: Message) -> dict[str, Any]:
    """The message as a dict with the API's lowerCamel names.

    A field ``start_time_s`` (Unix seconds) becomes ``startTime`` in RFC 3339, null while it is not set.
    """
    data: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.name in _UNIX_TIMES:
            data[field.json_name.removesuffix("S")] = rfc3339(value) if value else None
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            data[field.json_name] = {key: _value(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            data[field.json_name] = [_value(item) for item in value]
        else:
            data[field.json_name] = _value(value)
    return data


def _value(value: Any) -> Any:
    if not isinstance(value, Message):
        return _scalar(value)
    free = value.DESCRIPTOR.full_name.startswith("google.protobuf.")  # values of the user's own, such as options
    return MessageToDict(value) if free else plain(value)


def _scalar(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_table(context: Context) -> bool:
    """Whether people read the data of this command."""
    return context.options.output in ("table", "wide")


def emit(
    context: Context,
    data: Mapping[str, Any],
    *,
    table: Callable[[], Iterable[str]],
    names: Iterable[str],
    rows: str = "",
) -> None:
    """Writes the result of a command to stdout in the form that ``-o`` asks for.

    Args:
        context: where to, in which form.
        data: for machines.
        table: for people.
        names: for ``-o name``.
        rows: the list in ``data`` that the rows of custom columns show, where it has several.
    """
    form = context.options.output
    if is_table(context):
        context.console.data(table())
    elif form == "name":
        context.console.data(names)
    else:
        context.console.data(document(data, form, ascii_only=context.console.ascii_only, rows=rows))


def document(data: Mapping[str, Any], form: str, *, ascii_only: bool = False, rows: str = "") -> str:
    """The data as one document in a form for machines."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=ascii_only)
    if form.startswith(JSONPATH):
        from trainctl.cli.query.template import read_template, render

        return render(read_template(form.removeprefix(JSONPATH)), data)
    if form.startswith(COLUMNS):
        from trainctl.cli.query.columns import cells, read_columns

        columns = read_columns(form.removeprefix(COLUMNS))
        return "\n".join(aligned([c.name for c in columns], [cells(columns, row) for row in _rows(data, rows)]))
    import yaml

    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=not ascii_only).rstrip("\n")


def stream_item(data: Mapping[str, Any], form: str, *, ascii_only: bool = False) -> str:
    """One item of a stream: a JSON line, a YAML document of its own, a row without a header."""
    if form == "json":
        return json.dumps(data, ensure_ascii=ascii_only)
    if form.startswith(COLUMNS):
        from trainctl.cli.query.columns import cells, read_columns

        return "  ".join(cells(read_columns(form.removeprefix(COLUMNS)), data))
    text = document(data, form, ascii_only=ascii_only)
    return f"---\n{text}" if form == "yaml" else text


def _rows(data: Mapping[str, Any], key: str) -> Sequence[Any]:
    """What the rows of a table show: the entries of the named or only list in ``data``, else ``data`` itself."""
    if key:
        named: Sequence[Any] = data[key]
        return named
    lists = [value for value in data.values() if is_list(value)]
    return lists[0] if len(lists) == 1 else [data]
