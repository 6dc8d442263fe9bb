"""Which saved tensor a wanted tensor comes from; everything that does not fit is found before a byte is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches

from trainctl.checkpoint.layout.combine import Cast, Term
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.core.errors import UnfitCheckpointError

_FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})
_LISTED = 5


def match(
    saved: Mapping[StateKey, Shape],
    wanted: Mapping[StateKey, Shape],
    *,
    saved_aliases: Mapping[str, str],
    wanted_aliases: Mapping[str, str],
    everything: AbstractSet[tuple[str, str]],
    cast: bool,
) -> dict[StateKey, tuple[Term, ...]]:
    """The source of every wanted key.

    Versions are ignored (loading is what changes them), and so is whether a tensor of the model is a parameter or a
    buffer: folders of other programs do not tell. A tensor that is tied on one side only is found under its other name;
    where the checkpoint has two tensors and the model ties them, the one under the model's first name is taken.

    Args:
        saved: shapes of what the checkpoint has.
        wanted: shapes of what this rank wants.
        saved_aliases: tied names at the time of saving.
        wanted_aliases: tied names now.
        everything: name and kind of all that any rank of the job wants.
        cast: whether floating-point dtypes may differ.

    Raises:
        UnfitCheckpointError: lists keys that one side lacks, and shapes and dtypes that differ.
    """
    by_name: dict[tuple[str, str], list[StateKey]] = {}
    for key in sorted(saved):
        by_name.setdefault((key.fqn, _role(key.kind)), []).append(key)
    terms: dict[StateKey, tuple[Term, ...]] = {}
    problems: list[str] = []
    near = _Nearest(by_name)
    for key in sorted(wanted):
        role = _role(key.kind)
        fqn = key.fqn if (key.fqn, role) in by_name else saved_aliases.get(key.fqn, key.fqn)
        candidates = by_name.get((fqn, role), [])
        usable = [c for c in candidates if c.instance == key.instance] or candidates
        source = usable[0] if usable else key
        if len(usable) != 1:
            instances = ", ".join(c.instance for c in usable)
            nearest = near.to(key) if len(problems) < _LISTED else ""
            found = f"found several instances: {instances}" if usable else f"not in the checkpoint{nearest}"
            problems.append(f"{key.kind} of {key.fqn}: wanted, but {found}")
        elif problem := _difference(source, saved[source], key, wanted[key], cast=cast):
            problems.append(problem)
        else:
            combine = Cast(key.dtype) if source.dtype != key.dtype else None
            terms[key] = (Term(source, combine),)
    problems += _surplus(saved, everything, saved_aliases, wanted_aliases)
    if problems:
        shown = problems[:_LISTED] + ([f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else [])
        raise UnfitCheckpointError(
            "\n".join(
                [f"the checkpoint does not fit the state to load it into ({len(problems)} differences):", *shown]
            ),
            hint="check that model and optimizer are the ones that were saved; nothing was loaded",
        )
    return terms


def _role(kind: str) -> str:
    """What tells tensors of one name apart."""
    return "param" if kind == "buffer" else kind


class _Nearest:
    """Names of the checkpoint that look like one that is missing."""

    def __init__(self, names: Collection[tuple[str, str]]) -> None:
        self._names = names
        self._by_kind: dict[str, list[str]] = {}

    def to(self, key: StateKey) -> str:
        """Empty where nothing looks like it."""
        role = _role(key.kind)
        if role not in self._by_kind:
            self._by_kind[role] = [fqn for fqn, kind in self._names if kind == role]
        found = get_close_matches(key.fqn, self._by_kind[role], n=1, cutoff=0.7)
        return f"; the nearest name there is {found[0]}" if found else ""


def _difference(source: StateKey, found: Shape, key: StateKey, want: Shape, *, cast: bool) -> str:
    name = f"{key.kind} of {key.fqn}"
    if tuple(found) != tuple(want):
        return f"{name}: expected shape {list(want)}, found {list(found)}"
    if source.dtype != key.dtype and not (cast and {source.dtype, key.dtype} <= _FLOATS):
        return f"{name}: expected {key.dtype}, found {source.dtype}" + ("" if cast else " (casting was not asked for)")
    return ""


def _surplus(
    saved: Mapping[StateKey, Shape],
    everything: AbstractSet[tuple[str, str]],
    saved_aliases: Mapping[str, str],
    wanted_aliases: Mapping[str, str],
) -> list[str]:
    """Saved tensors that nobody wants under any of their names."""
    names = {(fqn, _role(kind)) for fqn, kind in everything}
    if wanted_aliases:
        names |= {(wanted_aliases.get(fqn, fqn), kind) for fqn, kind in names}
        tied: dict[str, list[str]] = {}
        for alias, fqn in wanted_aliases.items():
            tied.setdefault(fqn, []).append(alias)
        names |= {(alias, kind) for fqn, kind in names for alias in tied.get(fqn, ())}
    if saved_aliases:
        names |= {(saved_aliases.get(fqn, fqn), kind) for fqn, kind in names}
    surplus = sorted({(key.kind, key.fqn) for key in saved if (key.fqn, _role(key.kind)) not in names})
    return [f"{kind} of {fqn}: in the checkpoint, but not wanted" for kind, fqn in surplus]
