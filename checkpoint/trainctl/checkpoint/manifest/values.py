"""Python values as JSON that reads back exactly: floats by their bits, big integers, tuples, keys that are no texts.

Nothing that runs code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trainctl.core.errors import CheckpointError
from trainctl.core.plain import is_list, is_mapping, is_tuple
from trainctl.core.texts import shortened

_FLOAT, _INT, _TUPLE, _PAIRS, _COUNTER = "$float", "$int", "$tuple", "$pairs", "$counter"
_MARKS = (_FLOAT, _INT, _TUPLE, _PAIRS, _COUNTER)
_EXACT_INTEGERS = 2**53
_DEEPEST = 100
_EXPECTED = "None, bool, int, float, str, list, tuple or dict"
_SHOWN = 50


def encode_value(value: Any, *, path: str = "objects", keys_only: bool = False) -> Any:
    """The value as plain JSON; a float becomes ``{"$float": "0x1.8p+1"}``.

    Args:
        value: to encode.
        path: what it is called in errors.
        keys_only: leave numbers and tuples to JSON, which changes no number but makes tuples lists.

    Raises:
        CheckpointError: it holds something that JSON cannot hold; names the paths of all such things.
    """
    encoding = _Encoding(keys_only=keys_only)
    encoded = encoding.of(value, path)
    if encoding.problems:
        more = len(encoding.problems) - _SHOWN
        lines = [*encoding.problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise CheckpointError("\n".join(lines), hint="keep tensors in the state and everything else as plain values")
    return encoded


def needs_marks_of_keys(encoded: Any) -> bool:
    """Whether what ``encode_value`` gave has dicts that readers of version 1 of the format would misread."""
    if is_list(encoded):
        return any(map(needs_marks_of_keys, encoded))
    if not is_mapping(encoded):
        return False
    return _mark_of(encoded) in (_PAIRS, _COUNTER) or any(map(needs_marks_of_keys, encoded.values()))


def decode_value(data: Any) -> Any:
    """What ``encode_value`` was given; of a mapping a dict, of a counter a ``Counter``."""
    if is_list(data):
        return [decode_value(item) for item in data]
    if not is_mapping(data):
        return data
    mark = _mark_of(data)
    if mark == _FLOAT:
        return float.fromhex(data[_FLOAT])
    if mark == _INT:
        return int(data[_INT])
    if mark == _TUPLE:
        return tuple(decode_value(item) for item in data[_TUPLE])
    if mark == _PAIRS:
        return dict(_decoded_pairs(data[_PAIRS]))
    if mark == _COUNTER:
        return Counter(dict(_decoded_pairs(data[_COUNTER])))
    return {key: decode_value(item) for key, item in data.items()}


def _mark_of(data: Mapping[Any, Any]) -> Any:
    """The only key, which may be a mark; None where there are more keys, or none."""
    return next(iter(data)) if len(data) == 1 else None


def _decoded_pairs(pairs: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, Any]]:
    return ((decode_value(key), decode_value(item)) for key, item in pairs)


class _Encoding:
    """One walk through a value.

    Args:
        keys_only: see ``encode_value``.

    Attributes:
        problems: what JSON cannot hold, a line each.
    """

    def __init__(self, *, keys_only: bool) -> None:
        self.problems: list[str] = []
        self._keys_only = keys_only
        self._around: dict[int, str] = {}

    def of(self, value: Any, path: str) -> Any:
        """The value as JSON; anything where there is a problem."""
        if isinstance(value, str):
            return self._text(value, path)
        if value is None or isinstance(value, bool) or (self._keys_only and isinstance(value, (int, float))):
            return value
        if isinstance(value, int):
            return value if abs(value) <= _EXACT_INTEGERS else {_INT: str(value)}
        if isinstance(value, float):
            return {_FLOAT: value.hex()}
        if not (is_list(value) or is_tuple(value) or is_mapping(value)):
            self.problems.append(f"{path}: expected {_EXPECTED}, found {type(value).__name__}")
            return None
        if id(value) in self._around:
            name, outer = type(value).__name__, self._around[id(value)]
            self.problems.append(f"{path}: expected values that come to an end, found the {name} {outer} inside itself")
            return None
        if len(self._around) == _DEEPEST:
            self.problems.append(f"{path}: expected values at most {_DEEPEST} deep inside each other, found more")
            return None
        self._around[id(value)] = path
        found = self._mapping(value, path) if isinstance(value, Mapping) else self._items(value, path)
        del self._around[id(value)]
        return found

    def _text(self, value: str, path: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            self.problems.append(f"{path}: expected a text, found one that is no Unicode: {error.reason}")
        return value

    def _items(self, value: list[Any] | tuple[Any, ...], path: str) -> Any:
        items = [self.of(item, f"{path}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) or self._keys_only else {_TUPLE: items}

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        if not isinstance(value, Counter) and all(isinstance(key, str) and key not in _MARKS for key in value):
            return {self._text(key, path): self.of(item, f"{path}.{key}") for key, item in value.items()}
        pairs: list[list[Any]] = []
        for key, item in value.items():
            place = f"{path}[{shortened(repr(key))}]"
            pairs.append([self.of(key, f"the key of {place}"), self.of(item, place)])
        return {_COUNTER if isinstance(value, Counter) else _PAIRS: pairs}
