"""What the code measures: ``make sizes`` prints it, ``test_sizes.py`` holds it to ``budgets.toml``.

Reads nothing but the files: any folder of Python sources can be measured, with ``python -m architecture.sizes FOLDER``.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from architecture.duplicates import Run, duplicates

ROOT = Path(__file__).parents[2]
PORTIONS = ("protos", "parallel", "checkpoint", "controller", "agent")
_MAKERS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"})
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_READ_ONLY = re.compile(r"\b(Mapping|Sequence|Collection|Iterable|AbstractSet)\b")

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """A file that somebody wrote.

    Attributes:
        path: shown relative to the folder that is measured.
        text, tree: what it says.
        nodes: all that is in the tree.
    """

    path: Path
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]

    @classmethod
    def of(cls, path: Path, text: str) -> Source:
        tree = ast.parse(text)
        return cls(path, text, tree, tuple(ast.walk(tree)))

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())


def sources(root: Path, folders: Iterable[str]) -> tuple[Source, ...]:
    """The Python files below some folders of ``root``, without what protoc wrote."""
    found = sorted({path for folder in folders for path in (root / folder).rglob("*.py") if "_pb2" not in path.name})
    return tuple(Source.of(path.relative_to(root), path.read_text(encoding="utf-8")) for path in found)


def file_lengths(files: Iterable[Source]) -> dict[str, int]:
    """Lines of every file; an ``__init__.py``, which is a list of names, is left out."""
    return {str(file.path): file.num_lines for file in files if file.path.name != "__init__.py"}


def functions(files: Iterable[Source]) -> Iterator[tuple[str, Function]]:
    """Every function, method and inner function, by file, name and line."""
    for file in files:
        for node in file.nodes:
            if isinstance(node, Function):
                yield f"{file.path} {node.name}:{node.lineno}", node


def function_lengths(files: Iterable[Source]) -> dict[str, int]:
    """Lines of every function from its ``def`` on, docstring and inner functions included."""
    return {where: (node.end_lineno or node.lineno) - node.lineno + 1 for where, node in functions(files)}


def unannotated(files: Iterable[Source]) -> list[str]:
    """Functions that leave out the type of a parameter or of what they return."""
    return [where for where, node in functions(files) if not _is_annotated(node)]


def _is_annotated(node: Function) -> bool:
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    typed = [each for each in named if each.arg not in ("self", "cls")]
    return node.returns is not None and all(each.annotation is not None for each in typed)


def public_names(files: Iterable[Source]) -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    """Modules, and the classes, functions and methods without an underscore in them.

    Overloads and methods marked ``@override`` are left out: another docstring is theirs.
    """
    for file in files:
        yield str(file.path), file.tree
        yield from _offered(str(file.path), file.tree)


def _offered(where: str, node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    for each in node.body:
        if not isinstance(each, ast.ClassDef | Function) or each.name.startswith("_"):
            continue
        marks = {getattr(mark, "id", getattr(mark, "attr", "")) for mark in each.decorator_list}
        if not marks & {"overload", "override", "setter"}:
            yield f"{where} {each.name}:{each.lineno}", each
        if isinstance(each, ast.ClassDef):
            yield from _offered(where, each)


def undocumented(files: Iterable[Source]) -> list[str]:
    """Public names without a docstring."""
    return [where for where, node in public_names(files) if not ast.get_docstring(node)]


def num_docstring_lines(files: Iterable[Source]) -> int:
    """Lines of the docstrings of modules, classes and functions."""
    nodes = [node for file in files for node in file.nodes if isinstance(node, _DOCUMENTED)]
    texts = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    return sum((text.end_lineno or text.lineno) - text.lineno + 1 for text in texts)


def num_comments(files: Iterable[Source]) -> int:
    """Comments, those behind code included."""
    tokens = (tokenize.generate_tokens(io.StringIO(file.text).readline) for file in files)
    return sum(token.type == tokenize.COMMENT for each in tokens for token in each)


def mutable_globals(files: Iterable[Source]) -> list[str]:
    """Where a module binds something that can change and does not say that it is only read, and every ``global``."""
    found: list[str] = []
    for file in files:
        found += [f"{file.path}:{node.lineno}" for node in file.nodes if isinstance(node, ast.Global)]
        for node in file.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and _can_change(node):
                found.append(f"{file.path}:{node.lineno}")
    return found


def _can_change(node: ast.Assign | ast.AnnAssign) -> bool:
    names = node.targets if isinstance(node, ast.Assign) else [node.target]
    if any(isinstance(name, ast.Name) and name.id == "__all__" for name in names):
        return False
    if isinstance(node, ast.AnnAssign) and _READ_ONLY.search(ast.unparse(node.annotation)):
        return False
    made = node.value.func if isinstance(node.value, ast.Call) else None
    return isinstance(node.value, _DISPLAYS) or getattr(made, "id", getattr(made, "attr", "")) in _MAKERS


def code_lines(file: Source) -> list[tuple[int, str]]:
    """Number and text of every line that counts as written twice where it stands twice.

    It counts as it reads without its indentation. Blank lines, comments, docstrings and imports do not count: two files
    that need the same modules are no finding.
    """
    idle: set[int] = set()
    for node in file.nodes:
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and _is_text(node.value)):
            idle.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = ((number, line.strip()) for number, line in enumerate(file.text.splitlines(), 1) if number not in idle)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def repeated(files: Iterable[Source], longer_than: int) -> tuple[Run, ...]:
    """Runs of more than so many lines of code that stand in two places."""
    return duplicates({file.path: code_lines(file) for file in files}, longer_than)


def share(values: Iterable[int], of: float) -> int:
    """The value that so large a share of all does not exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * of))] if ordered else 0


def table(files: Sequence[Source], longer_than: int) -> list[tuple[str, str]]:
    """What is measured, a row each: its name and the figure."""
    lengths, spans = file_lengths(files).values(), function_lengths(files).values()
    lines, offered = sum(file.num_lines for file in files), sum(1 for _ in public_names(files))
    runs = repeated(files, longer_than)
    return [
        ("files, lines", f"{len(files)}, {lines}"),
        ("file, lines: median / p90 / max", _spread(lengths)),
        ("functions", str(len(spans))),
        ("function, lines: median / p90 / max", _spread(spans)),
        ("functions annotated throughout", _percent(len(spans) - len(unannotated(files)), len(spans))),
        ("public names with a docstring", _percent(offered - len(undocumented(files)), offered)),
        ("lines of docstrings per 100 lines", f"{100 * num_docstring_lines(files) / max(1, lines):.1f}"),
        ("comments per 100 lines", f"{100 * num_comments(files) / max(1, lines):.1f}"),
        ("mutable globals", str(len(mutable_globals(files)))),
        (f"runs of more than {longer_than} lines in two places", f"{len(runs)}"),
    ]


def _spread(values: Iterable[int]) -> str:
    kept = list(values)
    return " / ".join(str(share(kept, of)) for of in (0.5, 0.9, 1.0))


def _percent(some: int, of: int) -> str:
    return f"{100 * some / max(1, of):.1f} %"


def main(folders: Sequence[str]) -> None:
    """Prints the table of some folders, or that of the product and that of its tests."""
    measured = [(" ".join(folders), Path(), folders)] if folders else []
    for title, root, parts in measured or [("product", ROOT, PORTIONS), ("tests", ROOT, ("tests",))]:
        print(title)
        for name, figure in table(sources(root, parts), longer_than=8):
            print(f"  {name:<46} {figure}")


if __name__ == "__main__":
    main(sys.argv[1:])
