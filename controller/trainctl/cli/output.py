"""Messages as JSON or YAML: the API's names, whole numbers as numbers, times as RFC 3339."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from trainctl.cli.context import Context
from trainctl.cli.times import rfc3339

_UNIX_TIMES = frozenset({"create_time_s", "start_time_s", "end_time_s", "time_s", "since_s", "started_s"})


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
            data[field.json_name] = {key: _scalar(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            data[field.json_name] = [_value(item) for item in value]
        else:
            data[field.json_name] = _value(value)
    return data


def _value(value: Any) -> Any:
    return plain(value) if isinstance(value, Message) else _scalar(value)


def _scalar(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def emit(
    context: Context, data: Mapping[str, Any], *, table: Callable[[], Iterable[str]], names: Iterable[str]
) -> None:
    """Writes the result of a command to stdout in the form that ``-o`` asks for."""
    form = context.options.output
    if form == "table":
        context.console.data(table())
    elif form == "name":
        context.console.data(names)
    else:
        context.console.data(document(data, form))


def document(data: Mapping[str, Any], form: str) -> str:
    """One whole JSON or YAML document."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True).rstrip("\n")


def stream_item(data: Mapping[str, Any], form: str) -> str:
    """One item of a stream: a JSON line, or a YAML document of its own."""
    return json.dumps(data, ensure_ascii=False) if form == "json" else f"---\n{document(data, 'yaml')}"
