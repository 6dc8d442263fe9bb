"""What is changed in a module: each place where it decides or computes something, one change at a time.

Left out is what other tests judge or nobody runs: texts, docstrings, annotations, decorators, ``__all__``, what only
type checkers read; and what cannot go unnoticed wherever it is passed, such as the first assignment of a name.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
"""Of an order both the boundary and the direction."""

OPERATIONS: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}

_UNREAD = frozenset({"annotation", "returns", "decorator_list", "type_params"})
_LOGGED = frozenset({"debug", "info", "warning", "error", "exception"})


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ``make`` makes it in the tree that it was found in."""

    line: int
    what: str
    make: Callable[[], None]


def changes(tree: ast.Module) -> Iterator[Change]:
    """All of them, in an order that is the same whenever the same text is parsed."""
    yield from _below(tree, frozenset())


def _below(node: ast.AST, known: frozenset[str]) -> Iterator[Change]:
    """Of what stands in a node; ``known`` are the names of its function that are assigned more than once."""
    if isinstance(node, ast.FunctionDef):
        known = _assigned_again(node)
    for field, value in ast.iter_fields(node):
        if field in _UNREAD:
            continue
        if isinstance(value, list):
            items: list[object] = value
            for index, one in enumerate(items):
                if isinstance(one, ast.AST):
                    yield from _at(one, known, partial(items.__setitem__, index))
        elif isinstance(value, ast.AST):
            yield from _at(value, known, partial(setattr, node, field))


def _at(node: ast.AST, known: frozenset[str], put: Callable[[ast.AST], None]) -> Iterator[Change]:
    if _is_text(node):
        return
    for new in (*_of_expression(node), *_of_statement(node, known)):
        where = node.target if isinstance(node, ast.comprehension) else node
        yield Change(getattr(where, "lineno", 0), f"{_shown(node)}  ->  {_shown(new)}", partial(put, new))
    if not isinstance(node, ast.Raise):  # what it says, and to whom
        yield from _below(node, known)


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Constant(value=str(text)):
            return " " in text
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name.endswith("Error") or name in ("TypeVar", "NewType", "cast")
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))):
            return name in _LOGGED
        case _:
            return False


def _of_expression(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=right):
            for at, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:at], other(), *ops[at + 1 :]], right)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS and not (_says(left) or _says(right)):
            yield ast.BinOp(left, OPERATIONS[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            yield ast.Constant(number + 1)
        case ast.Constant(value=str() | bytes() as text) if text:
            yield ast.Constant(text[:0])
        case ast.IfExp(test=_, body=body, orelse=orelse):
            yield from (ast.IfExp(ast.Constant(fixed), body, orelse) for fixed in (True, False))
        case ast.comprehension(target=target, iter=items, ifs=[_, *_], is_async=is_async):
            yield ast.comprehension(target, items, [], is_async)
        case _:
            pass


def _of_statement(node: ast.AST, known: frozenset[str]) -> Iterator[ast.AST]:
    match node:
        case ast.If(test=_, body=body, orelse=orelse):
            yield from (ast.If(ast.Constant(fixed), body, orelse) for fixed in (True, False))
        case ast.While(test=_, body=body, orelse=orelse):
            yield ast.While(ast.Constant(False), body, orelse)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Assign(targets=[target]) | ast.AugAssign(target=target) if _is_known(target, known):
            yield ast.Pass()
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case _:
            pass


def _assigned_again(function: ast.FunctionDef) -> frozenset[str]:
    names = [one.id for one in ast.walk(function) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    arguments = [one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)]
    return frozenset(name for name in names if (names + arguments).count(name) > 1)


def _is_known(target: ast.expr, known: frozenset[str]) -> bool:
    return isinstance(target, ast.Attribute | ast.Subscript) or (isinstance(target, ast.Name) and target.id in known)


def _says(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node).strip().splitlines()[0]
    return text if len(text) <= 90 else text[:87] + "..."
