"""What a root manifest says of a state: names, shapes and small values, no tensor. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape


class Described(Protocol):
    """A state as far as sealing looks at it: a ``LocalState``, or a ``Description``."""

    @property
    def objects(self) -> Mapping[str, Any]:
        """Small JSON-like values."""
        ...

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Files to keep beside the tensors, by relative path."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names of tied tensors -> the name that they are stored under."""
        ...

    def shapes(self) -> Mapping[StateKey, Shape]:
        """Global shape of every key."""
        ...


@dataclass(frozen=True, slots=True)
class Description:
    """A state that this process does not hold.

    Attributes:
        tensors: global shape of every key.
        objects, artifacts, aliases: as in ``Described``.
    """

    tensors: Mapping[StateKey, Shape]
    objects: Mapping[str, Any] = field(default_factory=dict[str, Any])
    artifacts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])

    def shapes(self) -> Mapping[StateKey, Shape]:
        """Global shape of every key."""
        return self.tensors


def schema_digest(state: Described) -> str:
    """Hash of names, kinds, dtypes, shapes and ties, blind to values and version: equal where state is exchangeable."""
    rows = sorted([key.fqn, key.kind, key.dtype, key.instance, list(shape)] for key, shape in state.shapes().items())
    text = json.dumps([rows, sorted(state.aliases.items())], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
