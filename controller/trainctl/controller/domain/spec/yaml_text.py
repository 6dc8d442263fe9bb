"""From text to positioned nodes: YAML, read strictly and within limits, so that no file can hurt or surprise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import yaml

from trainctl.controller.domain.spec.nodes import Node
from trainctl.controller.domain.spec.yaml_errors import yaml_problem
from trainctl.controller.domain.spec.yaml_nodes import MAX_DEPTH, MAX_NODES, Reader
from trainctl.core.errors import Problem, SpecError

HINT = "nothing was started; docs/reference/spec.md lists every field"
MAX_BYTES = 256 * 1024
MAX_ALIASES = 100

# What YAML takes for characters of a text (and PyYAML refuses without a position), and the mark that begins a file.
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BYTE_ORDER_MARK = "\ufeff"
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_KINDS: Mapping[type[yaml.Event], type[yaml.Node]] = {
    yaml.ScalarEvent: yaml.ScalarNode,
    yaml.SequenceStartEvent: yaml.SequenceNode,
    yaml.MappingStartEvent: yaml.MappingNode,
}


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
    events = yaml.SafeLoader(text)
    try:
        tagged = _check_events(events, source)
        root = yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SpecError((yaml_problem(error),), source=source, hint=HINT) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # PyYAML converts "\UFFFFFFFF" and "%YAML 1.99..." unchecked
        raise _at(events.get_mark(), "not YAML: an escape or a version that is out of range", source) from None
    if root is None:
        message = "the file is empty; expected a TrainJob"
        raise SpecError((Problem(path="", message=message),), source=source, hint="docs/guide.md has a job file")
    reader = Reader(tagged)
    return reader.node(root), tuple(reader.problems)


def line_and_column(before: str) -> tuple[int, int]:
    """Where the character after this beginning of a text stands, counted as YAML counts: from 1."""
    lines = _LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


def _check_raw(text: str, source: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        message = f"the file has {size} bytes; a job file has at most {MAX_BYTES} (256 KiB)"
        raise SpecError((Problem(path="", message=message),), source=source, hint="is this the right file?")
    start = int(text.startswith(_BYTE_ORDER_MARK))
    odd = _NOT_ALLOWED.search(text, start)
    if odd is None:
        return
    message = f"character U+{ord(odd.group()):04X} is not allowed in a job file"
    if odd.group() == "\0":
        message += " (a zero byte: is it binary?)"
    line, column = line_and_column(text[start : odd.start()])
    raise SpecError((Problem(path="", message=message, line=line, column=column),), source=source, hint=HINT)


def _check_events(loader: yaml.SafeLoader, source: str) -> frozenset[tuple[int, type[yaml.Node]]]:
    """Limits, checked on the flat stream of events, before anything is built or expanded; where tags are written."""
    depth = aliases = documents = nodes = 0
    tagged: set[tuple[int, type[yaml.Node]]] = set()
    while loader.check_event():
        event = cast("yaml.Event", loader.get_event())  # type: ignore[no-untyped-call]
        mark = event.start_mark
        assert mark is not None, "all that a loader makes has one"
        message = ""
        nodes += isinstance(event, yaml.NodeEvent)
        if getattr(event, "tag", None) is not None:
            tagged.add((mark.index, _KINDS[type(event)]))
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
            raise _at(mark, message, source)
    return frozenset(tagged)


def _at(mark: Any, message: str, source: str) -> SpecError:
    problem = Problem(path="", message=message, line=mark.line + 1, column=mark.column + 1)
    return SpecError((problem,), source=source, hint=HINT)
