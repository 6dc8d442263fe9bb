"""From composed YAML to nodes: numbers and words as people mean them; odd keys, duplicates and tags are problems."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

import yaml

from trainctl.controller.domain.spec.nodes import Entry, Node, Scalar
from trainctl.core.errors import Problem
from trainctl.core.texts import shortened

MAX_DEPTH = 20
MAX_NODES = 20_000

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*)?\.?[0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.([eE][-+]?[0-9]+)?")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


class Reader:
    """Builds nodes from composed YAML; collects problems instead of stopping at the first.

    Args:
        tagged: the keys and values that were written with a tag: index into the text, and kind of node.
    """

    def __init__(self, tagged: Set[tuple[int, type[yaml.Node]]]) -> None:
        self.problems: list[Problem] = []
        self._tagged = tagged
        self._budget = MAX_NODES

    def node(self, raw: yaml.Node, path: str = "", depth: int = 0) -> Node:
        """The value, and everything in it."""
        line, column = raw.start_mark.line + 1, raw.start_mark.column + 1
        self._budget = -1 if depth > MAX_DEPTH and self._budget > 0 else self._budget - 1
        if self._budget < 0:
            if self._budget == -1:
                self._problem(raw, path, f"aliases expand to more than {MAX_NODES} values or {MAX_DEPTH} levels")
            return Node(value=None, line=line, column=column)
        self._tag(raw, path)
        if isinstance(raw, yaml.MappingNode):
            return Node(value=dict(self._entries(raw, path, depth)), line=line, column=column)
        if isinstance(raw, yaml.SequenceNode):
            items = tuple(self.node(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(raw.value))
            return Node(value=items, line=line, column=column)
        assert isinstance(raw, yaml.ScalarNode)
        return Node(value=self._scalar(raw, path), line=line, column=column, text=raw.value)

    def _entries(self, raw: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[str, Entry]]:
        seen: dict[str, int] = {}
        for raw_key, raw_value in raw.value:
            line, column = raw_key.start_mark.line + 1, raw_key.start_mark.column + 1
            if not isinstance(raw_key, yaml.ScalarNode):
                self._problem(
                    raw_key, path, "a key must be a text, found a list or mapping; is {{ }} of a template left over?"
                )
                continue
            name = raw_key.value
            here = f"{path}.{shortened(name)}" if path else shortened(name)
            if name in seen:
                self._problem(raw_key, here, f'duplicate key "{shortened(name)}", first on line {seen[name]}')
                continue
            seen[name] = line
            if raw_key.tag == f"{_TAG}merge":
                self._problem(raw_key, here, "merge keys are not used in job files; write the values out")
                continue
            self._tag(raw_key, here)
            self._whole(raw_key, here)
            key = Node(value=name, line=line, column=column, text=name)
            yield name, Entry(key=key, value=self.node(raw_value, here, depth + 1))

    def _scalar(self, raw: yaml.ScalarNode, path: str) -> Scalar:
        self._whole(raw, path)
        text = str(raw.value)
        if raw.style:  # quoted, or a block
            return text
        tag = raw.tag.removeprefix(_TAG)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in ("yes", "true", "on")
        return _number(text)

    def _tag(self, raw: yaml.Node, path: str) -> None:
        if (raw.start_mark.index, type(raw)) in self._tagged:
            name = shortened(str(raw.tag).replace(_TAG, "!!"))
            self._problem(raw, path, f"tags such as {name} are not used in job files; leave it out")

    def _whole(self, raw: yaml.ScalarNode, path: str) -> None:
        half = _HALF_CHARACTER.search(raw.value)
        if half is not None:
            found = f"\\u{ord(half.group()):04x}"
            self._problem(raw, path, f"{found} is half of a character; write the character itself, or \\U and 8 digits")

    def _problem(self, raw: yaml.Node, path: str, message: str) -> None:
        mark = raw.start_mark
        self.problems.append(Problem(path=path, message=message, line=mark.line + 1, column=mark.column + 1))


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
