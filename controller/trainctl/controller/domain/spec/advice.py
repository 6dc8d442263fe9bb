"""What to do about a wrong value or name: the half of a message that helps."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from trainctl.controller.domain.spec.fields import INT_LIMIT, Field, places_of
from trainctl.controller.domain.spec.nodes import Node
from trainctl.core.texts import look_alikes, shortened

_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MISREAD = frozenset({"yes", "no", "on", "off", "y", "n"})
_DURATIONS = frozenset({"activeDeadline", "replacementWait", "window", "after", "interval"})
_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+")
_MOST_DIGITS = 10
_MOST_PLACES = 3
_LONGEST_NAME = 100


def type_words(hint: type) -> str:
    """What a field of this type takes."""
    return _WORDS[hint]


def is_misread(node: Node) -> bool:
    """Whether YAML 1.1 takes it for true or false, and most people do not."""
    return node.text.lower() in _MISREAD


def advice(hint: type, node: Node, path: str = "") -> str:
    """What to write instead of a value of the wrong type; empty where the message says it already."""
    value = node.value
    if value is None:
        return "; give it a value, or leave the key out"
    if hint is str and isinstance(value, (bool, int, float)):
        spelled = shortened(node.text or str(value))
        if path.rpartition(".")[2] in _DURATIONS and not isinstance(value, bool):
            return f"; a duration has a unit: {spelled}s, {spelled}m"
        return f'; YAML reads it so, put it in quotes: "{spelled}"'
    if hint is bool:
        return _for_boolean(node)
    if hint in (int, float):
        return _for_number(hint, value)
    if hint is tuple and isinstance(value, str) and value.startswith("-"):
        return "; a dash needs a space after it"
    if hint is tuple and isinstance(value, str):
        return "; write [a, b], or a line with a dash for each"
    if hint is Mapping and isinstance(value, tuple):
        return "; write NAME: VALUE for each entry, without dashes"
    if hint is Mapping and isinstance(value, str) and ":" in value:
        return "; a colon needs a space after it" if "\n" not in value else "; leave out the | that makes it a text"
    return ""


def _for_boolean(node: Node) -> str:
    if is_misread(node):
        return "; write true or false"
    return "; write it without quotes" if node.text in ("true", "false") else ""


def _for_number(hint: type, value: object) -> str:
    within = f"; it must lie within -{INT_LIMIT - 1} and {INT_LIMIT - 1}"
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return within
    if hint is int and isinstance(value, float) and abs(value) < INT_LIMIT and value.is_integer():
        return f"; write {int(value)}"
    if isinstance(value, str) and value.replace("_", "").isdigit():
        return "; write it without quotes and leading zeros" if len(value) <= _MOST_DIGITS else within
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return "; the decimal separator is a point"
    return ""


def unknown_field(name: str, fields: Mapping[str, Field], path: str) -> tuple[str, str]:
    """The message for a name that is no field of the mapping at ``path``, and the field that was probably meant."""
    if not name:
        return "a key is a text of at least one character, found none", name
    lowered = {field.lower(): field for field in fields}
    probe = name[:_LONGEST_NAME].replace("_", "").replace("-", "").lower()
    if probe in lowered:
        return f'unknown field (did you mean "{lowered[probe]}"?)', lowered[probe]
    elsewhere = places_of(name)
    if elsewhere:
        return f"unknown field of {path or 'the job file'} (it belongs to {_parents(elsewhere)})", name
    known = f" (known here: {', '.join(sorted(fields))})"
    if "[" in name and name.partition("[")[0] in fields:
        return "unknown field (the entries of a list are not set one by one; write the whole list)", name
    if "=" in name:
        return "unknown field (a key is followed by a colon and a space, not by =)", name
    if "." in name:
        return "unknown field (a dot does not nest: write mappings inside each other)", name
    close = difflib.get_close_matches(probe, lowered, n=1, cutoff=0.6)
    if close:
        return f'unknown field (did you mean "{lowered[close[0]]}"?){look_alikes(name)}', lowered[close[0]]
    return f"unknown field{known}", name


def _parents(paths: tuple[str, ...]) -> str:
    parents = [path.rpartition(".")[0] or "the top level" for path in paths]
    return " or ".join([*parents[:_MOST_PLACES], *(["others"] if len(parents) > _MOST_PLACES else [])])
