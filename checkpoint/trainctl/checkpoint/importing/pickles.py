"""Reads a pickle as what it says, and does nothing of it: no class is looked up, nothing is called or imported.

A pickle is a program for a stack machine. Here, what it would call becomes a record of the call (``Made``), and a class
its name (``Name``), which has to be one of those that are expected; opcodes for anything else are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from trainctl.core.errors import CheckpointError
from trainctl.core.plain import is_dict, is_list, is_tuple

_HINT = (
    "a pickle may run any code, so only what such a file needs is read, and nothing is run; do you trust its source?"
)
_LITERALS = frozenset(
    (
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_DEEPEST = 100
_MOST_PER_BYTE, _MOST_AT_LEAST = 10, 1000
"""Values inside of values, each counted wherever it stands: a few bytes put two of the former into each next one."""
_ORDERED_DICT = ("collections", "OrderedDict")


@dataclass(frozen=True, slots=True)
class Name:
    """A class, function or constant that the pickle names."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Made:
    """What calling ``what`` would have made, and the state it would have been given."""

    what: Name
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Something that lies outside of the pickle."""

    where: Any


def read_pickle(data: bytes, allowed: AbstractSet[tuple[str, str]], *, where: str) -> Any:
    """The pickle's value, of dicts, lists, tuples, numbers, texts, ``Name``, ``Made`` and ``Stored``.

    Args:
        data: the pickle.
        allowed: module and name of everything that it may name.
        where: the file, for errors.

    Raises:
        CheckpointError: it names something else, uses another opcode, or is torn.
    """
    machine = _Machine(allowed, where)
    try:
        for opcode, argument, position in pickletools.genops(data):
            machine.step(opcode.name, argument, position or 0)
        return _bounded(machine.pop(), _MOST_AT_LEAST + _MOST_PER_BYTE * len(data))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where} is no intact pickle: {error}", hint="copy it again from its source") from error


def _bounded(value: Any, most: int) -> Any:
    """The value, if whoever walks through it comes to an end soon.

    Raises:
        ValueError: it is inside of itself, too deep, or has too much in it.
    """
    left, found = [(value, 0)], 0
    while left:
        one, depth = left.pop()
        found += 1
        if depth > _DEEPEST or found > most:
            raise ValueError(f"expected values at most {_DEEPEST} deep, each in few places")
        left += [(inner, depth + 1) for inner in _inside(one)]
    return value


def _inside(value: Any) -> Iterable[Any]:
    if is_list(value) or is_tuple(value):
        return value
    if is_dict(value):
        return (*value, *value.values())
    if isinstance(value, Made):
        return value.arguments, value.state
    return (value.where,) if isinstance(value, Stored) else ()


class _Machine:
    def __init__(self, allowed: AbstractSet[tuple[str, str]], where: str) -> None:
        self._allowed = allowed
        self._where = where
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps: Mapping[str, Callable[[], None]] = {
            "MARK": lambda: self._marks.append(len(self._stack)),
            "EMPTY_DICT": lambda: self._stack.append({}),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_TUPLE": lambda: self._stack.append(()),
            "TUPLE": lambda: self._stack.append(tuple(self._since_mark())),
            "TUPLE1": lambda: self._tuple(1),
            "TUPLE2": lambda: self._tuple(2),
            "TUPLE3": lambda: self._tuple(3),
            "APPEND": lambda: self._extend([self.pop()]),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._set_items([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda: self._set_items(self._since_mark()),
            "STACK_GLOBAL": lambda: self._name(*[self.pop(), self.pop()][::-1]),
            "REDUCE": self._make,
            "NEWOBJ": self._make,
            "BUILD": self._build,
            "BINPERSID": lambda: self._stack.append(Stored(self.pop())),
            "POP": lambda: self._drop(),
        }

    def pop(self) -> Any:
        """Takes the uppermost value."""
        if self._marks and self._marks[-1] >= len(self._stack):
            raise ValueError("a value is missing")
        return self._stack.pop()

    def step(self, opcode: str, argument: Any, position: int) -> None:
        """Carries out one opcode, as far as it is data."""
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif opcode == "GLOBAL":
            self._name(*argument.split(" ", 1))
        elif opcode in self._steps:
            self._steps[opcode]()
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            shown = f" of {str(argument)[:100]}" if argument is not None else ""
            raise CheckpointError(
                f"{self._where}: expected data, found opcode {opcode}{shown} at {position}", hint=_HINT
            )

    def _name(self, module: Any, name: Any) -> None:
        plain = isinstance(module, str) and isinstance(name, str)
        if not plain or (module, name) not in self._allowed:
            module, name = (module, name) if plain else (type(module).__name__, type(name).__name__)
            raise CheckpointError(
                f"{self._where} is refused: it names {str(module)[:100]}.{str(name)[:100]}, which has no place in it",
                hint=_HINT,
            )
        self._stack.append(Name(module, name))

    def _since_mark(self) -> list[Any]:
        begin = self._marks.pop()
        found = self._stack[begin:]
        del self._stack[begin:]
        return found

    def _tuple(self, size: int) -> None:
        self._stack.append(tuple([self.pop() for _ in range(size)][::-1]))

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not is_list(target):
            raise TypeError(f"expected a list to append to, found {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not is_dict(target) or len(items) % 2:
            raise TypeError(f"expected a dict and pairs to put into it, found {type(target).__name__}")
        if any(isinstance(key, (tuple, list, dict)) for key in items[::2]):  # to hash a deep tuple may end the process
            raise TypeError("expected texts, numbers or objects as keys")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _make(self) -> None:
        arguments, what = self.pop(), self.pop()
        if not isinstance(what, Name) or not is_tuple(arguments):
            raise TypeError("expected the name of a class and a tuple")
        empty = (what.module, what.name) == _ORDERED_DICT and not arguments
        self._stack.append({} if empty else Made(what, arguments))

    def _build(self) -> None:
        state, made = self.pop(), self._stack[-1]
        if is_dict(made) and is_dict(state):  # attributes of an OrderedDict
            return
        if not isinstance(made, Made):
            raise TypeError(f"expected an object to give a state to, found {type(made).__name__}")
        made.state = state

    def _drop(self) -> None:
        self.pop()
