"""``--set spec.train.steps=5``: values changed on the command line, read with the same strictness as the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.controller.domain.spec.nodes import Entry, Node, from_plain, to_plain
from trainctl.controller.domain.spec.yaml_text import read_yaml
from trainctl.core.errors import Problem, SpecError


def apply_overrides(
    document: str | Mapping[str, object], overrides: Sequence[str], *, source: str = "job"
) -> dict[str, object]:
    """The plain data of a job file (text or data) with each ``path=value`` set: what ``job_from_wire`` takes.

    To keep the positions of the text, give the overrides to ``parse_job`` instead.

    Raises:
        SpecError: the text is not YAML, or an override cannot be applied.
    """
    root = read_yaml(document, source=source) if isinstance(document, str) else from_plain(document)
    changed = to_plain(set_values(root, overrides))
    return changed if isinstance(changed, dict) else {}


def set_values(root: Node, overrides: Sequence[str]) -> Node:
    """The nodes with each ``path=value`` set; the value is YAML (``[0.9, 0.95]``, ``30s``, ``true``).

    Raises:
        SpecError: an override is not ``path=value``, or its path runs through something that is not a mapping.
    """
    problems: list[Problem] = []
    for text in overrides:
        try:
            root = _apply(root, text)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(tuple(problems), source="--set", hint="write --set spec.train.steps=5")
    return root


def _apply(root: Node, text: str) -> Node:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise _error(path, f"expected PATH=VALUE such as spec.train.steps=5, found {text!r}")
    parsed = _value(value.strip())
    return _set(root, keys, Node(value=parsed.value, text=parsed.text), path)


def _value(text: str) -> Node:
    """A value by itself has no anchors, so that what begins with a star can only be a pattern such as ``*.txt``."""
    if not text or text.startswith("*"):
        return Node(value=text, text=text)
    return read_yaml(text, source="--set")


def _set(node: Node, keys: Sequence[str], value: Node, path: str) -> Node:
    if not keys:
        return value
    if not isinstance(node.value, Mapping):
        raise _error(path, f"{keys[0]!r} cannot be set: its parent is not a mapping")
    entries = dict(node.value)
    entry = entries.get(keys[0])
    child = entry.value if entry is not None else Node(value={})
    key = entry.key if entry is not None else Node(value=keys[0], text=keys[0])
    entries[keys[0]] = Entry(key=key, value=_set(child, keys[1:], value, path))
    return Node(value=entries, line=node.line, column=node.column)


def _error(path: str, message: str) -> SpecError:
    return SpecError((Problem(path=path, message=message),), source="--set")
