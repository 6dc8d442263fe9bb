"""What the tensors of a folder are: parameters, an optimizer's state, or something else. Pure; every guess is said.

Folders of torch DCP hold one nested dict. The part with the parameters is found by how it is nested; an optimizer's
state is what lies under ``state``, named by a parameter and a kind: ``optim.state.<parameter>.exp_avg``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from trainctl.checkpoint.importing.source import SourceTensor
from trainctl.core.errors import UsageError
from trainctl.core.units import format_count

PARAM = "param"
_STATE = "state"
_TOP = "."
_LISTED = 5
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What a person says of the names.

    Attributes:
        section: where in the nested dict the parameters are, with dots; ``.``: at the top; empty: found out.
        strip_prefix: taken from the parameters' names where it is there.
        exclude: shell patterns of names to leave out.
        parameters_only: leave an optimizer's state out.
    """

    section: str = ""
    strip_prefix: str = ""
    exclude: tuple[str, ...] = ()
    parameters_only: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor to import, and what it becomes."""

    tensor: SourceTensor
    fqn: str
    kind: str


@dataclass(frozen=True, slots=True)
class Recognised:
    """What to import, and what people should know of the rest.

    Attributes:
        tensors: with names that are all different.
        optimizer: whether an optimizer's state is among them.
        notes: one line for each thing that was guessed or left out.
    """

    tensors: tuple[Named, ...]
    optimizer: bool
    notes: tuple[str, ...]


def recognise(tensors: Sequence[SourceTensor], others: Sequence[Path], naming: Naming) -> Recognised:
    """Says of every tensor what it is.

    Args:
        tensors: of the folder.
        others: paths of what is no tensor.
        naming: what a person says.

    Raises:
        UsageError: it cannot be said; names the places and the option that decides.
    """
    if strange := [tensor.name for tensor in tensors if not tensor.name.isprintable()]:
        raise UsageError(
            f"expected names of printable characters, found {strange[0][:200]!a} ({len(strange)} such names)"
        )
    notes: list[str] = []
    kept = _without(tensors, naming.exclude, notes)
    states = {tensor.path: parts for tensor in kept if (parts := _state_parts(tensor.path))}
    section = _section(kept, states, naming.section)
    model = {_below(tensor.path, section): tensor for tensor in kept if _in(tensor.path, section, naming)}
    named = {fqn for _, fqn, _ in states.values()}
    # A module may be called ``state``, too: its tensors are parameters if an optimizer has state for them.
    parameters = {tensor.path for fqn, tensor in model.items() if fqn in named}
    moments = {path: parts for path, parts in states.items() if parts[1] in model and path not in parameters}
    model = {fqn: tensor for fqn, tensor in model.items() if tensor.path not in moments}
    if not model:
        raise UsageError("expected parameters, found none", hint="say where they are with --section")
    if section:
        notes.append(f"parameters are those under {'.'.join(section)}")
    found = [Named(tensor, fqn, PARAM) for fqn, tensor in model.items()]
    by_path = {tensor.path: tensor for tensor in kept}
    if naming.parameters_only:
        notes += [f"left out: the optimizer's state, {format_count(len(moments), 'tensor')}"] if moments else []
    else:
        _check_optimizer(states, moments, model, section, others)
        found += [Named(by_path[path], fqn, kind) for path, (_, fqn, kind) in moments.items()]
    taken = {named.tensor.path for named in found} | set(moments)
    notes += _left_out((t.path for t in kept if t.path not in taken), "tensor")
    notes += _left_out(others, "pickled value", "never read")
    return Recognised(_stripped(found, naming.strip_prefix), any(n.kind != PARAM for n in found), tuple(notes))


def _without(tensors: Sequence[SourceTensor], patterns: Sequence[str], notes: list[str]) -> list[SourceTensor]:
    kept = list(tensors)
    for pattern in patterns:
        left = [tensor for tensor in kept if not fnmatchcase(tensor.name, pattern)]
        if len(left) == len(kept):
            raise UsageError(f"--exclude {pattern}: expected it to match names of tensors, found none that do")
        notes.append(f"left out by --exclude {pattern}: {format_count(len(kept) - len(left), 'tensor')}")
        kept = left
    return kept


def _state_parts(path: Path) -> tuple[Path, str, str] | None:
    """Where the optimizer is, and parameter and kind, of the path of something that may be of its state."""
    for index, step in enumerate(path):
        if step == _STATE or step.startswith(f"{_STATE}."):
            fqn, _, kind = ".".join(path[index:])[len(_STATE) + 1 :].rpartition(".")
            return (path[:index], fqn, kind) if fqn else None
    return None


def _section(kept: Sequence[SourceTensor], states: Mapping[Path, tuple[Path, str, str]], said: str) -> Path:
    """The path that leads to the parameters."""
    if said:
        section = () if said == _TOP else tuple(said.split("."))
        if not any(tensor.path[: len(section)] == section for tensor in kept):
            raise UsageError(f"--section {said}: expected tensors there, found them under {_tops(kept, 0)}")
        return section
    paths = [tensor.path for tensor in kept if tensor.path not in states]
    named = {fqn for _, fqn, _ in states.values()}
    section = ()
    while True:
        depth = len(section)
        inside = [path for path in paths if path[:depth] == section]
        tops = {path[depth] for path in inside if len(path) > depth + 1}
        flat = {path[depth] for path in inside if len(path) == depth + 1}
        if not tops or (flat and named and named <= flat):
            return section
        if "model" in tops or (len(tops) == 1 and not flat):
            section = (*section, "model" if "model" in tops else next(iter(tops)))
            continue
        raise UsageError(
            f"expected one place with parameters, found tensors under {_tops(kept, depth)}",
            hint="say which are the parameters: --section NAME (a dot: those at the top)",
        )


def _tops(kept: Sequence[SourceTensor], depth: int) -> str:
    counts = Counter(t.path[depth] if len(t.path) > depth + 1 else _TOP for t in kept if len(t.path) > depth)
    return ", ".join(f"{top} ({count})" for top, count in sorted(counts.items()))


def _below(path: Path, section: Path) -> str:
    return ".".join(path[len(section) :])


def _in(path: Path, section: Path, naming: Naming) -> bool:
    """Whether it is in the section; one that was found out has nothing nested in it."""
    inside = path[: len(section)] == section and len(path) > len(section)
    return inside and (len(path) == len(section) + 1 or naming.section not in ("", _TOP))


def _check_optimizer(
    states: Mapping[Path, tuple[Path, str, str]],
    moments: Mapping[Path, tuple[Path, str, str]],
    model: Mapping[str, SourceTensor],
    section: Path,
    others: Sequence[Path],
) -> None:
    hint = "--parameters-only leaves the optimizer's state out"
    homes = sorted({home for home, _, _ in moments.values()})
    if len(homes) > 1:
        raise UsageError(
            f"expected the state of one optimizer, found several: {', '.join(map('.'.join, homes))}", hint=hint
        )
    own = {tensor.path for tensor in model.values()}
    strange = [
        path for path, (home, _, _) in states.items() if path not in moments and path not in own and home in homes
    ]
    if not homes and states.keys() - own:
        strange = sorted(states.keys() - own)
    if strange:
        names = "\n".join(".".join(path) for path in strange[:_LISTED])
        raise UsageError(
            f"expected state of parameters that are there, found {len(strange)} others:\n{names}", hint=hint
        )
    pickled = [path for path in others if (parts := _state_parts(path)) and parts[1] in model]
    if pickled:
        raise UsageError(
            f"expected tensors in the optimizer's state, found a pickled value: {'.'.join(pickled[0])} "
            f"({len(pickled)} of them)",
            hint=hint,
        )


def _left_out(paths: Iterable[Path], what: str, why: str = "") -> list[str]:
    counts = Counter(path[0] if len(path) > 1 else _TOP for path in paths)
    return [
        f"left out: {format_count(count, what)} "
        + ("at the top" if top == _TOP else f"under {top}")
        + (f" ({why})" if why else "")
        for top, count in sorted(counts.items())
    ]


def _stripped(found: Sequence[Named], prefix: str) -> tuple[Named, ...]:
    if prefix and not any(named.fqn.startswith(prefix) for named in found):
        names = ", ".join(named.fqn for named in found[:_LISTED])
        raise UsageError(f"--strip-prefix {prefix}: expected names that begin with it, found {names}")
    stripped = [Named(named.tensor, named.fqn.removeprefix(prefix), named.kind) for named in found]
    twice = [name for name, count in Counter((n.fqn, n.kind) for n in stripped).items() if count > 1]
    if twice:
        raise UsageError(f"--strip-prefix {prefix}: expected different names, found {twice[0][0]} twice")
    return tuple(sorted(stripped, key=lambda named: (named.fqn, named.kind)))
