"""What of a checkpoint does not fit a model, so that a person reads it: a line for tensors that differ alike.

A renamed block shows up once for each of its layers. Names are taken for alike where only numbers in them differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trainctl.checkpoint.nearest import Numbers, numbers_in, pattern_of, without_numbers
from trainctl.checkpoint.spans import spans


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
        what = (one.kind, pattern_of(one.name), one.text, pattern_of(one.nearest), one.spare)
        alike.setdefault(what, []).append(one)
    kinds: dict[str, list[str]] = {}
    for group in alike.values():
        for line in _lines(group):
            kinds.setdefault(line, []).append(group[0].kind)
    return [f"{_listed(kind)} of {line}" for line, kind in kinds.items()]


def _lines(group: Sequence[Difference]) -> Iterator[str]:
    """What is said of the tensors of one kind."""
    by_numbers = {numbers_in(one.name): one for one in group}
    for block in _blocks(sorted(by_numbers)):
        members = [by_numbers[each] for each in block]
        count = f" ({len(members)} tensors)" if len(members) > 1 else ""
        line = f"{_label(one.name for one in members)}{count}: {members[0].text}"
        if members[0].nearest:
            line += _nearest_line({numbers_in(one.nearest): one.nearest for one in members})
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
    texts, places = without_numbers(listed[0]), list(zip(*map(numbers_in, listed), strict=True))
    varying = [sorted(set(values)) for values in places]
    shown = (f"{{{spans(values)}}}" if len(values) > 1 else str(values[0]) for values in varying)
    return "".join(itertools.chain.from_iterable(itertools.zip_longest(texts, shown, fillvalue="")))
