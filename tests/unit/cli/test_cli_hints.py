"""Every error that the command line raises says what to do next: read off its source.

Without it people would be told what is wrong and left alone with it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from trainctl import cli

PACKAGE = Path(str(cli.__file__)).parent
EXEMPT = {"ExpressionError", "StreamAgedError", "StreamEndedError", "OSError", "ValueError"}
"""The first brings a hint of its own; the others are never shown: somebody catches them."""


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Errors that are made anywhere in the package, each with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.func.id}", node


def test_every_error_has_a_hint() -> None:
    found = dict(raised())
    assert len(found) > 50
    silent = [
        place
        for place, call in found.items()
        if not any(keyword.arg == "hint" for keyword in call.keywords) and place.split()[1] not in EXEMPT
    ]
    assert not silent
