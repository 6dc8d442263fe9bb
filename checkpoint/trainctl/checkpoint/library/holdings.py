"""What all ranks hold together, put together from what each says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.plain import from_plain, to_plain
from trainctl.checkpoint.layout.region import Region, Shape
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.save.description import Description
from trainctl.core.errors import PlanError


def told(state: LocalState) -> dict[str, Any]:
    """What this rank says: names, shapes and regions as JSON values."""
    tensors = [
        [t.key.fqn, t.key.kind, t.key.dtype, t.key.instance, list(t.shape), to_plain(t.region)] for t in state.tensors
    ]
    return {"tensors": tensors, "aliases": dict(state.aliases)}


@dataclass(frozen=True, slots=True)
class Holdings:
    """What ranks hold at one version.

    Attributes:
        layout: who holds what.
        aliases: names of tied tensors on any rank.
        version: in all keys.
    """

    layout: Layout
    aliases: Mapping[str, str]
    version: StateVersion

    @classmethod
    def of(cls, said: Sequence[Mapping[str, Any]], version: StateVersion) -> Holdings:
        """Puts together what ``told`` gave on each rank, in rank order.

        Raises:
            PlanError: two ranks hold different tensors under one name; all such names are listed.
        """
        shapes: dict[StateKey, Shape] = {}
        holders: dict[str, dict[StateKey, tuple[Region, ...]]] = {}
        first: dict[tuple[str, str], tuple[int, StateKey]] = {}
        problems: list[str] = []
        for rank, one in enumerate(said):
            held = holders.setdefault(rank_holder(rank), {})
            for fqn, kind, dtype, instance, plain_shape, plain_region in one["tensors"]:
                key, shape = StateKey(fqn, kind, dtype, instance, version), tuple(plain_shape)
                other, known = first.setdefault((fqn, kind), (rank, key))
                if known != key or shapes.setdefault(key, shape) != shape:
                    problems.append(
                        f"{kind} of {fqn}: rank {other} has {known.dtype} {list(shapes[known])}, "
                        f"rank {rank} {dtype} {list(shape)}"
                    )
                    continue
                held[key] = (*held.get(key, ()), from_plain(plain_region))
        if problems:
            raise PlanError(
                "\n".join(["expected the same tensors under the same names on all ranks, found:", *problems]),
                hint="global shapes are meant, whatever part of them a rank holds",
            )
        aliases = {alias: name for one in said for alias, name in one["aliases"].items()}
        return cls(Layout(shapes, holders), aliases, version)

    def here(self, state: LocalState) -> LocalState:
        """This rank's state, at the version."""
        tensors = (replace(t, key=t.key._replace(version=self.version)) for t in state.tensors)
        return replace(state, tensors=tuple(tensors))

    def described(self, state: LocalState) -> Description:
        """The state of all ranks, with the objects and artifacts of ``state``."""
        return Description(self.layout.shapes, state.objects, state.artifacts, self.aliases)
