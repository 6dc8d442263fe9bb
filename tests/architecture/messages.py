"""What the code says to people, as one text: every literal with more than one word, placeholders as ``{}``.

Docstrings are no messages. Names of metrics, fields and columns are single words, and are not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from architecture.pages import ROOT

PORTIONS = ("protos", "parallel", "checkpoint", "controller", "agent")


@dataclass(frozen=True, slots=True)
class Message:
    """A text and where it stands, such as ``agent/trainctl/agent/link.py:12``."""

    where: str
    text: str


@cache
def messages() -> tuple[Message, ...]:
    """All of them, in the order of files and lines."""
    found = []
    for portion in PORTIONS:
        for path in sorted((ROOT / portion).rglob("*.py")):
            if "_pb2" not in path.name:
                tree = ast.parse(path.read_text())
                found += [Message(f"{path.relative_to(ROOT)}:{line}", text) for line, text in texts(tree)]
    return tuple(found)


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of the literals below a node; what stands in a placeholder is a text of its own."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring, or what is said of a constant
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    else:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    if " " in text.strip():
        yield getattr(node, "lineno", 0), text
    for below in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(below, ast.Constant)):
            yield from texts(below)
