"""What of a checkpoint does not fit a model, so that a person reads it: a line for tensors that differ alike.

A renamed block shows up once for each of its layers. Names are taken for alike where only numbers in them differ.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.spans import spans

_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)")
"""Others, such as 007, are taken for letters."""
_CUTOFF = 0.6
_TRIED = 5
"""Close names of which one with the right shape is taken."""

Numbers = tuple[int, ...]


class Difference(NamedTuple):
    """One tensor that does not fit.

    Attributes:
        kind: of the tensor.
        name: of the tensor.
        text: what is wrong with it.
        nearest: a name that looks like it; empty if there is none.
        spare: whether nobody else wants that one.
    """

    kind: str
    name: str
    text: str
    nearest: str = ""
    spare: bool = False


def grouped(found: Iterable[Difference]) -> list[str]:
    """A line for each group of tensors that differ alike, in the order of the first of each."""
    alike: dict[tuple[object, ...], list[Difference]] = {}
    for one in found:
        what = (one.kind, _pattern(one.name), one.text, _pattern(one.nearest), one.spare)
        alike.setdefault(what, []).append(one)
    kinds: dict[str, list[str]] = {}
    for group in alike.values():
        for line in _lines(group):
            kinds.setdefault(line, []).append(group[0].kind)
    return [f"{_listed(kind)} of {line}" for line, kind in kinds.items()]


def _lines(group: Sequence[Difference]) -> Iterator[str]:
    """What is said of the tensors of one kind."""
    by_numbers = {_numbers(one.name): one for one in group}
    for numbers in _blocks(sorted(by_numbers)):
        members = [by_numbers[each] for each in numbers]
        count = f" ({len(members)} tensors)" if len(members) > 1 else ""
        line = f"{_label(one.name for one in members)}{count}: {members[0].text}"
        if members[0].nearest:
            line += _nearest_line({_numbers(one.nearest): one.nearest for one in members})
            line += ", not wanted otherwise" if members[0].spare else ""
        yield line


def _nearest_line(names: Mapping[Numbers, str]) -> str:
    labels = [_label(names[each] for each in block) for block in _blocks(sorted(names))]
    return f"; the nearest {'name there is' if len(names) == 1 else 'names there are'} {_listed(labels)}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _blocks(numbers: Sequence[Numbers]) -> Iterator[list[Numbers]]:
    """Cuts sorted tuples of numbers so that each part is all combinations of what its places take."""
    if len(numbers) == math.prod(len(set(place)) for place in zip(*numbers, strict=True)) or len(numbers) == 1:
        yield list(numbers)
        return
    place = next(at for at, values in enumerate(zip(*numbers, strict=True)) if len(set(values)) > 1)
    for _, part in itertools.groupby(numbers, key=lambda each: each[place]):
        yield from _blocks(list(part))


def _label(names: Iterable[str]) -> str:
    """Names that differ in numbers only as one: ``layers.{0-3,7}.weight``."""
    listed = list(names)
    texts, places = _NUMBER.split(listed[0]), list(zip(*map(_numbers, listed), strict=True))
    varying = [sorted(set(values)) for values in places]
    shown = (f"{{{spans(values)}}}" if len(values) > 1 else str(values[0]) for values in varying)
    return "".join(itertools.chain.from_iterable(itertools.zip_longest(texts, shown, fillvalue="")))


def _pattern(name: str) -> str:
    return _NUMBER.sub("*", name)


def _numbers(name: str) -> Numbers:
    return tuple(map(int, _NUMBER.findall(name)))


class Nearest:
    """Names of a checkpoint that look like one that is missing.

    Args:
        shapes: of what the checkpoint has, by name and kind.
        spare: names and kinds that nobody wants: what was renamed is one of these.
    """

    def __init__(self, shapes: Mapping[tuple[str, str], Shape], spare: Collection[tuple[str, str]]) -> None:
        self._shapes = shapes
        self._spare = frozenset(spare)
        self._patterns: dict[tuple[str, bool], dict[str, dict[Numbers, str]]] = {}
        for name, kind in sorted(shapes):
            by_pattern = self._patterns.setdefault((kind, (name, kind) in self._spare), {})
            by_pattern.setdefault(_pattern(name), {})[_numbers(name)] = name
        self._close: dict[tuple[str, str, bool, Shape], str] = {}

    def to(self, name: str, kind: str, shape: Shape) -> tuple[str, bool]:
        """The nearest name, empty where nothing looks like it; and whether nobody wants that one.

        What differs in numbers only is nearest; then what is spare.
        """
        own = _pattern(name)
        alike = [spare for spare in (True, False) if own in self._patterns.get((kind, spare), {})]
        for spare in alike or (True, False):
            pattern = own if alike else self._pattern_near(name, kind, shape, spare=spare)
            if pattern:
                named = self._patterns[kind, spare][pattern]
                return named[min(named, key=lambda numbers: _apart(numbers, _numbers(name)))], spare
        return "", False

    def _pattern_near(self, name: str, kind: str, shape: Shape, *, spare: bool) -> str:
        """Looked for once for all names that differ in numbers only."""
        what = (_pattern(name), kind, spare, shape)
        if what not in self._close:
            patterns = self._patterns.get((kind, spare), {})
            found = get_close_matches(what[0], patterns, n=_TRIED, cutoff=_CUTOFF)
            fits = (
                each
                for each in found
                if any(tuple(self._shapes[other, kind]) == tuple(shape) for other in patterns[each].values())
            )
            self._close[what] = next(fits, found[0] if found else "")
        return self._close[what]


def _apart(some: Numbers, others: Numbers) -> tuple[int, int, Numbers]:
    """Sorts by how far the numbers are apart; a name with more or fewer numbers is further away."""
    return abs(len(some) - len(others)), sum(abs(a - b) for a, b in zip(some, others, strict=False)), some
