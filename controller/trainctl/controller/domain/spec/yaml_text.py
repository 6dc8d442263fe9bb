"""From text to positioned nodes: YAML, read strictly and within limits, so that no file can hurt or surprise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from trainctl.controller.domain.spec.nodes import Entry, Node, Scalar, shortened
from trainctl.core.errors import Problem, SpecError

HINT = "nothing was started; docs/reference/spec.md lists every field"
MAX_BYTES = 256 * 1024
MAX_ALIASES = 100
MAX_DEPTH = 20
MAX_NODES = 20_000

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*)?\.?[0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.([eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read_yaml(text: str, *, source: str) -> Node:
    """The only document of ``text`` as nodes with positions.

    Raises:
        SpecError: what ``compose`` raises, or any of the problems that it returns.
    """
    node, problems = compose(text, source=source)
    if problems:
        raise SpecError(problems, source=source, hint=HINT)
    return node


def compose(text: str, *, source: str) -> tuple[Node, tuple[Problem, ...]]:
    """The only document of ``text`` as nodes, and what is wrong inside it (duplicate or odd keys, tags).

    Raises:
        SpecError: the text as a whole is unusable: too large, not YAML, several documents, too many aliases, too deep.
    """
    _check_raw(text, source)
    try:
        _check_events(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _yaml_problem(error, source) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError((Problem(path="", message=f"not YAML: {error}"),), source=source, hint=HINT) from None
    if root is None:
        raise SpecError((Problem(path="", message="the file is empty; expected a TrainJob"),), source=source, hint=HINT)
    reader = _Reader()
    return reader.node(root), tuple(reader.problems)


def _check_raw(text: str, source: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        message = f"the file has {size} bytes; a job file has at most {MAX_BYTES} (256 KiB)"
        raise SpecError((Problem(path="", message=message),), source=source, hint="is this the right file?")
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        line = text.count("\n", 0, odd.start()) + 1
        column = odd.start() - text.rfind("\n", 0, odd.start())
        message = f"character U+{ord(odd.group()):04X} is not allowed in a job file"
        raise SpecError((Problem(path="", message=message, line=line, column=column),), source=source, hint=HINT)


def _check_events(text: str, source: str) -> None:
    """Limits, checked on the flat stream of events, before anything is built or expanded."""
    depth = aliases = documents = nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        message = ""
        nodes += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            message = f"more than {MAX_ALIASES} aliases" if aliases > MAX_ALIASES else ""
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            message = f"nested deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else ""
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            message = "more than one document; a job file has exactly one" if documents > 1 else ""
        if nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values"
        if message:
            raise _at(event.start_mark, message, source)


def _at(mark: Any, message: str, source: str) -> SpecError:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return SpecError((Problem(path="", message=message, line=line, column=column),), source=source, hint=HINT)


def _yaml_problem(error: yaml.MarkedYAMLError, source: str) -> SpecError:
    parts = [part for part in (error.context, error.problem, error.note) if part]
    message = "not YAML: " + ", ".join(parts)
    if "'\\t'" in message:
        message += " (a tab; YAML is indented with spaces)"
    return _at(error.problem_mark or error.context_mark, message, source)


class _Reader:
    """Builds nodes from composed YAML; collects problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._budget = MAX_NODES

    def node(self, raw: yaml.Node, path: str = "", depth: int = 0) -> Node:
        line, column = raw.start_mark.line + 1, raw.start_mark.column + 1
        self._budget = -1 if depth > MAX_DEPTH and self._budget > 0 else self._budget - 1
        if self._budget < 0:
            if self._budget == -1:
                message = f"aliases expand to more than {MAX_NODES} values or {MAX_DEPTH} levels"
                self.problems.append(Problem(path=path, message=message, line=line, column=column))
            return Node(value=None, line=line, column=column)
        if isinstance(raw, yaml.MappingNode):
            return Node(value=dict(self._entries(raw, path, depth)), line=line, column=column)
        if isinstance(raw, yaml.SequenceNode):
            items = tuple(self.node(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(raw.value))
            return Node(value=items, line=line, column=column)
        return Node(value=self._scalar(raw, path), line=line, column=column, text=raw.value)

    def _entries(self, raw: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[str, Entry]]:
        seen: dict[str, int] = {}
        for raw_key, raw_value in raw.value:
            line, column = raw_key.start_mark.line + 1, raw_key.start_mark.column + 1
            if not isinstance(raw_key, yaml.ScalarNode):
                self.problems.append(Problem(path=path, message="a key must be a text", line=line, column=column))
                continue
            name = raw_key.value
            here = f"{path}.{shortened(name)}" if path else shortened(name)
            if name in seen:
                message = f'duplicate key "{shortened(name)}", first on line {seen[name]}'
                self.problems.append(Problem(path=here, message=message, line=line, column=column))
                continue
            seen[name] = line
            if raw_key.tag == f"{_TAG}merge":
                self.problems.append(Problem(path=here, message="merge keys are not used", line=line, column=column))
                continue
            key = Node(value=name, line=line, column=column, text=name)
            yield name, Entry(key=key, value=self.node(raw_value, here, depth + 1))

    def _scalar(self, raw: yaml.Node, path: str) -> Scalar:
        tag, text = raw.tag.removeprefix(_TAG), raw.value
        if tag == "str" and not getattr(raw, "style", None):
            return _number(text)
        if tag == "str":
            return str(text)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in ("yes", "true", "on")
        if tag in ("int", "float"):
            return _number(text)
        if tag == "timestamp":
            return str(text)
        line, column = raw.start_mark.line + 1, raw.start_mark.column + 1
        message = f"the tag {raw.tag!r} is not used in job files"
        self.problems.append(Problem(path=path, message=message, line=line, column=column))
        return None


def _number(text: str) -> Scalar:
    """A number if the text plainly is one (also ``1e-3``, which YAML 1.1 takes for a text), else the text.

    YAML 1.1's octal (``010``) and base-60 (``1:30``) readings surprise everybody: those stay texts.
    """
    if len(text) > 40:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return float(text.replace("_", ""))
    if text.lower() in (".inf", "+.inf", "-.inf", ".nan"):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
