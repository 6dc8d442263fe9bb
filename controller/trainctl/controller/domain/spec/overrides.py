"""``--set spec.train.steps=5``: values changed on the command line, read with the same strictness as the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainctl.controller.domain.spec.nodes import Entry, Node, from_plain, kind_of, to_plain
from trainctl.controller.domain.spec.yaml_nodes import MAX_DEPTH
from trainctl.controller.domain.spec.yaml_text import read_yaml
from trainctl.core.errors import Problem, SpecError
from trainctl.core.texts import shortened

OPTION = "--set"


def apply_overrides(
    document: str | Mapping[str, object], overrides: Sequence[str], *, source: str = "job"
) -> dict[str, object]:
    """The plain data of a job file (text or data) with each ``path=value`` set: what ``job_from_wire`` takes.

    To keep the positions of the text, give the overrides to ``parse_job`` instead.

    Raises:
        SpecError: the text is not YAML, or an override cannot be applied.
    """
    root = read_yaml(document, source=source) if isinstance(document, str) else from_plain(document)
    root, problems = set_values(root, overrides)
    if problems:
        raise SpecError(problems, source=source, hint="write --set spec.train.steps=5")
    if not isinstance(root.value, Mapping):
        return {}
    return {key: to_plain(entry.value) for key, entry in root.value.items()}


def set_values(root: Node, overrides: Sequence[str]) -> tuple[Node, tuple[Problem, ...]]:
    """The nodes with each ``path=value`` set, and what is wrong with those that could not be.

    The value is YAML (``[0.9, 0.95]``, ``30s``, ``true``).
    """
    problems: list[Problem] = []
    for text in overrides:
        path, _, _ = text.partition("=")
        try:
            root = _apply(root, text)
        except _UnusableError as error:
            problems.append(Problem(path=shortened(path), message=f"{error}{_FROM}"))
        except SpecError as error:
            problems += [_inside(path, problem) for problem in error.problems]
    return root, tuple(problems)


def named(problem: Problem, overrides: Sequence[str]) -> Problem:
    """The problem; where it has no line since its value comes from the command line, it says so."""
    set_paths = [text.partition("=")[0].strip() for text in overrides]
    if problem.line or problem.message.endswith(_FROM) or not any(_related(problem.path, path) for path in set_paths):
        return problem
    return replace(problem, message=f"{problem.message}{_FROM}")


_FROM = f" (from {OPTION})"


class _UnusableError(Exception):
    """An override that cannot be applied."""


def _related(one: str, other: str) -> bool:
    return f"{one}.".startswith((f"{other}.", f"{other}[")) or f"{other}.".startswith(f"{one}.")


def _inside(path: str, problem: Problem) -> Problem:
    """A problem of the value: its line and column would be those of the option's text."""
    inner = f"{path}.{problem.path}" if problem.path else path
    return Problem(path=inner, message=f"{problem.message}{_FROM}")


def _apply(root: Node, text: str) -> Node:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise _UnusableError(f'expected PATH=VALUE such as spec.train.steps=5, found "{shortened(text)}"')
    parsed = _value(value.strip())
    return _set(root, keys, Node(value=parsed.value, text=parsed.text), path)


def _value(text: str) -> Node:
    """A value by itself has no anchors, so that what begins with a star can only be a pattern such as ``*.txt``."""
    if not text or text.startswith("*"):
        return Node(value=text, text=text)
    return _without_position(read_yaml(text, source=OPTION))


def _without_position(node: Node) -> Node:
    value = node.value
    if isinstance(value, Mapping):
        value = {
            key: Entry(key=_without_position(entry.key), value=_without_position(entry.value))
            for key, entry in value.items()
        }
    elif isinstance(value, tuple):
        value = tuple(_without_position(item) for item in value)
    return replace(node, value=value, line=0, column=0)


def _set(node: Node, keys: Sequence[str], value: Node, path: str) -> Node:
    if not keys:
        return value
    if not isinstance(node.value, Mapping):
        raise _UnusableError(f'expected a mapping to set "{shortened(keys[0])}" in, found {kind_of(node)}')
    entries = dict(node.value)
    entry = entries.get(keys[0])
    child = entry.value if entry is not None else Node(value={})
    key = entry.key if entry is not None else Node(value=keys[0], text=keys[0])
    entries[keys[0]] = Entry(key=key, value=_set(child, keys[1:], value, path))
    return Node(value=entries, line=node.line, column=node.column)
