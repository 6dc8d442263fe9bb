"""What to do about a wrong value or name: the half of a message that helps."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from trainctl.controller.domain.spec.fields import INT_LIMIT, Field, places_of
from trainctl.controller.domain.spec.nodes import Node
from trainctl.core.texts import look_alikes, shortened

_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MISREAD = frozenset({"yes", "no", "on", "off", "y", "n"})
_MOST_PLACES = 3
_LONGEST_NAME = 100


def type_words(hint: type) -> str:
    """What a field of this type takes."""
    return _WORDS[hint]


def is_misread(node: Node) -> bool:
    """Whether YAML 1.1 takes it for true or false, and most people do not."""
    return node.text.lower() in _MISREAD


def advice(hint: type, node: Node) -> str:
    """What to write instead of a value of the wrong type; empty where the message says it already."""
    value = node.value
    if hint is str and isinstance(value, (bool, int, float)):
        spelled = shortened(node.text or str(value))
        return f'; YAML reads it so, put it in quotes: "{spelled}"'
    if hint is bool and is_misread(node):
        return "; write true or false"
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return f"; it must lie within -{INT_LIMIT} and {INT_LIMIT}"
    if hint in (int, float) and isinstance(value, str) and value.replace("_", "").isdigit():
        return "; write it without quotes and leading zeros"
    if hint is tuple and isinstance(value, str):
        return "; write [a, b], or a line with a dash for each"
    return ""


def unknown_field(name: str, fields: Mapping[str, Field], path: str) -> tuple[str, str]:
    """The message for a name that is no field of the mapping at ``path``, and the field that was probably meant."""
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
    if "." in name:
        return f"unknown field (a dot does not nest: write mappings inside each other){known}", name
    close = difflib.get_close_matches(probe, lowered, n=1, cutoff=0.6)
    if close:
        return f'unknown field (did you mean "{lowered[close[0]]}"?{look_alikes(name)})', lowered[close[0]]
    return f"unknown field{known}", name


def _parents(paths: tuple[str, ...]) -> str:
    parents = [path.rpartition(".")[0] or "the top level" for path in paths]
    return " or ".join([*parents[:_MOST_PLACES], *(["others"] if len(parents) > _MOST_PLACES else [])])
