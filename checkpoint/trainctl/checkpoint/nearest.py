"""Names of a checkpoint that look like ones that are missing there; a name that nobody wants is given to one of them.

Names are compared without their numbers first: a block that was renamed shows up once for each of its layers.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import NamedTuple

from trainctl.checkpoint.layout.region import Shape

_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)")
"""Others, such as 007, are taken for letters."""
_CUTOFF = 0.6
_TRIED = 20
"""Close patterns: one of the right shape comes first, and others may have taken its names."""
_COMPARED = 200
"""Numbers of one pattern, for each name: every name of thousands compared with every other would take a minute."""

Numbers = tuple[int, ...]
Name = tuple[str, str]
"""Of a tensor, and its kind."""


def without_numbers(name: str) -> list[str]:
    """What is between the numbers of a name."""
    return _NUMBER.split(name)


def pattern_of(name: str) -> str:
    """The name with a star for each number."""
    return _NUMBER.sub("*", name)


def numbers_in(name: str) -> Numbers:
    """Those in the name."""
    return tuple(map(int, _NUMBER.findall(name)))


class _Group(NamedTuple):
    """Wanted names of one kind and shape that differ in numbers only."""

    kind: str
    pattern: str
    shape: Shape


class _Pair(NamedTuple):
    """A group, and a pattern of names in the checkpoint; the best pair sorts first."""

    other_pattern: bool
    other_shape: bool
    unlike: float
    group: _Group
    found: str


_Names = dict[str, dict[str, dict[Numbers, str]]]
"""By kind, pattern and numbers."""


def nearest(
    wanted: Mapping[Name, Shape], shapes: Mapping[Name, Shape], spare: Collection[Name]
) -> dict[Name, tuple[str, bool]]:
    """For each wanted name the nearest, and whether nobody else wants that one; no entry where nothing looks like it.

    What differs in numbers only is nearest; then what is spare. Each spare name is given away once, best pairs first.

    Args:
        wanted: shapes of what is missing.
        shapes: of what the checkpoint has.
        spare: names there that nobody wants: what was renamed is one of these.
    """
    waiting: dict[_Group, dict[str, None]] = {}
    for (name, kind), shape in sorted(wanted.items()):
        waiting.setdefault(_Group(kind, pattern_of(name), tuple(shape)), {})[name] = None
    spares = frozenset(spare) & shapes.keys()
    free, held = _by_kind(spares), _by_kind(shapes.keys() - spares)
    alike = {group for group in waiting if group.pattern in held.get(group.kind, {})}
    pairs = sorted(pair for group in waiting for pair in _pairs(group, free, shapes, same=group in alike))
    given: dict[Name, tuple[str, bool]] = {}
    for pair in pairs:
        names = waiting[pair.group]
        for name, taken in _taken(pair.group, names, free[pair.group.kind][pair.found], shapes):
            del names[name]
            given[name, pair.group.kind] = taken, True
    for group in waiting.keys() - {pair.group for pair in pairs} | alike:
        for pair in sorted(_pairs(group, held, shapes, same=group in alike))[:1]:
            found = held[group.kind][pair.found]
            order = sorted(found)
            for name in waiting[group]:
                given[name, group.kind] = found[min(_around(order, name), key=_distance(name))], False
    return given


def _by_kind(names: Iterable[Name]) -> _Names:
    found: _Names = {}
    for name, kind in sorted(names):
        found.setdefault(kind, {}).setdefault(pattern_of(name), {})[numbers_in(name)] = name
    return found


def _pairs(group: _Group, names: _Names, shapes: Mapping[Name, Shape], *, same: bool) -> Iterator[_Pair]:
    """What may be near; ``same``: only names that differ in numbers."""
    kind, own, shape = group
    patterns = names.get(kind, {})
    if own in patterns:
        yield _Pair(False, False, 0.0, group, own)
    elif not same:
        for found in get_close_matches(own, patterns, n=_TRIED, cutoff=_CUTOFF):
            fits = any(tuple(shapes[name, kind]) == shape for name in patterns[found].values())
            yield _Pair(True, not fits, 1 - SequenceMatcher(None, found, own).ratio(), group, found)


def _taken(
    group: _Group, names: Iterable[str], left: dict[Numbers, str], shapes: Mapping[Name, Shape]
) -> list[tuple[str, str]]:
    """Gives what is left of a pattern to names: the same numbers first, then the right shape, then numbers near by."""

    def misfit(each: Numbers) -> bool:
        return tuple(shapes[left[each], group.kind]) != group.shape

    exact = {name: None for name in names if numbers_in(name) in left and not misfit(numbers_in(name))}
    given = [(name, left.pop(numbers_in(name))) for name in exact]
    order = sorted(left)
    for name in [name for name in names if name not in exact][: len(left)]:
        apart = _distance(name)
        each = min(_around(order, name), key=lambda each: (misfit(each), apart(each)))
        order.remove(each)
        given.append((name, left.pop(each)))
    return given


def _around(order: Sequence[Numbers], name: str) -> Sequence[Numbers]:
    """Those to compare with the numbers of a name: all of a few, of thousands its neighbours in their order."""
    if len(order) <= _COMPARED:
        return order
    at = min(max(0, bisect(order, numbers_in(name)) - _COMPARED // 2), len(order) - _COMPARED)
    return order[at : at + _COMPARED]


def _distance(name: str) -> Callable[[Numbers], tuple[int, int, Numbers]]:
    """Sorts by how far the numbers are from a name's; a name with more or fewer numbers is further away."""
    own = numbers_in(name)
    return lambda some: (abs(len(some) - len(own)), sum(abs(a - b) for a, b in zip(some, own, strict=False)), some)
