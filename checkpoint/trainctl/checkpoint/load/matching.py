"""Which saved tensor a wanted tensor comes from; everything that does not fit is found before a byte is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from trainctl.checkpoint.differences import Difference, grouped
from trainctl.checkpoint.layout.combine import Cast, Term
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.nearest import nearest
from trainctl.core.errors import UnfitCheckpointError

_FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})
_LISTED = 200
"""Lines; what is more than anybody reads at once is in the log."""
_LOG = logging.getLogger("trainctl.checkpoint")


def match(
    saved: Mapping[StateKey, Shape],
    wanted: Mapping[StateKey, Shape],
    *,
    where: str,
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
        where: the checkpoint lies.
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
    missing: list[StateKey] = []
    problems: list[Difference] = []
    for key in sorted(wanted):
        role = _role(key.kind)
        fqn = key.fqn if (key.fqn, role) in by_name else saved_aliases.get(key.fqn, key.fqn)
        candidates = by_name.get((fqn, role), [])
        usable = [c for c in candidates if c.instance == key.instance] or candidates
        if not usable:
            missing.append(key)
        elif len(usable) > 1:
            instances = ", ".join(c.instance for c in usable)
            problems.append(Difference(key.kind, key.fqn, f"wanted, but found several instances: {instances}"))
        elif problem := _difference(usable[0], saved[usable[0]], key, wanted[key], cast=cast):
            problems.append(Difference(key.kind, key.fqn, problem))
        else:
            combine = Cast(key.dtype) if usable[0].dtype != key.dtype else None
            terms[key] = (Term(usable[0], combine),)
    surplus = _surplus(saved, everything, saved_aliases, wanted_aliases)
    if missing or problems or surplus:
        shapes = {name: tuple(saved[keys[0]]) for name, keys in by_name.items()}
        problems += _unfound({key: wanted[key] for key in missing}, shapes, surplus)
        raise _unfit(where, problems)
    return terms


def _unfit(where: str, problems: Sequence[Difference]) -> UnfitCheckpointError:
    head = f"{where} does not fit the state to load it into ({len(problems)} differences):"
    lines = tuple(grouped(problems))
    shown = list(lines[:_LISTED])
    if len(lines) > _LISTED:
        shown.append(f"and {len(lines) - _LISTED} more lines, which are in the log of this process")
        _LOG.error("%s", "\n".join([head, *lines]))
    return UnfitCheckpointError(
        "\n".join([head, *shown]),
        hint="check that model and optimizer are the ones that were saved; nothing was loaded",
        differences=lines,
    )


def _unfound(
    missing: Mapping[StateKey, Shape], shapes: Mapping[tuple[str, str], Shape], surplus: Mapping[tuple[str, str], str]
) -> list[Difference]:
    """What the checkpoint lacks, with the nearest name of each, and what nobody wants; a renamed tensor is said once.

    Args:
        missing: shapes of what is wanted.
        shapes: of what there is, by name and role.
        surplus: name and role of what nobody wants, with its kind.
    """
    near = nearest({(key.fqn, _role(key.kind)): shape for key, shape in missing.items()}, shapes, surplus)
    text = "wanted, but not in the checkpoint"
    found = [Difference(key.kind, key.fqn, text, *near.get((key.fqn, _role(key.kind)), ("", False))) for key in missing]
    named = {(one.nearest, _role(one.kind)) for one in found if one.spare}
    left = ((fqn, kind) for (fqn, role), kind in surplus.items() if (fqn, role) not in named)
    return [*found, *(Difference(kind, fqn, "in the checkpoint, but not wanted") for fqn, kind in left)]


def _role(kind: str) -> str:
    """What tells tensors of one name apart."""
    return "param" if kind == "buffer" else kind


def _difference(source: StateKey, found: Shape, key: StateKey, want: Shape, *, cast: bool) -> str:
    if tuple(found) != tuple(want):
        return f"expected shape {list(want)}, found {list(found)}"
    castable = {source.dtype, key.dtype} <= _FLOATS
    if source.dtype == key.dtype or (cast and castable):
        return ""
    return f"expected {key.dtype}, found {source.dtype}" + (" (cast=True was not given)" if castable else "")


def _surplus(
    saved: Mapping[StateKey, Shape],
    everything: AbstractSet[tuple[str, str]],
    saved_aliases: Mapping[str, str],
    wanted_aliases: Mapping[str, str],
) -> dict[tuple[str, str], str]:
    """Name and role of saved tensors that nobody wants under any of their names, with their kind."""
    names = {(fqn, _role(kind)) for fqn, kind in everything}
    if wanted_aliases:
        names |= {(wanted_aliases.get(fqn, fqn), kind) for fqn, kind in names}
        tied: dict[str, list[str]] = {}
        for alias, fqn in wanted_aliases.items():
            tied.setdefault(fqn, []).append(alias)
        names |= {(alias, kind) for fqn, kind in names for alias in tied.get(fqn, ())}
    if saved_aliases:
        names |= {(saved_aliases.get(fqn, fqn), kind) for fqn, kind in names}
    surplus = ((key.kind, key.fqn) for key in saved if (key.fqn, _role(key.kind)) not in names)
    return {(fqn, _role(kind)): kind for kind, fqn in sorted(surplus)}
