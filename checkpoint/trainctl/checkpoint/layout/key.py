"""What a piece of state is called: two holders are replicas of each other only if the whole key is equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trainctl.core.errors import PlanError

DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of one element, by the dtype names of the safetensors format: the spelling used in every key and file."""


class StateVersion(NamedTuple):
    """Which state it is: after ``step`` steps (0 is the initial state) of the chain ``lineage``."""

    lineage: int
    step: int


class StateKey(NamedTuple):
    """Names one logical tensor of a job's state. A tuple, since plans look up and sort thousands of them.

    Attributes:
        fqn: name that the parameter has in the unsharded, single-process model.
        kind: ``param``, ``exp_avg``, ``exp_avg_sq``, ``step``, ``gradient``, ...
        dtype: name of the safetensors format, such as ``F32``.
        instance: the island where values differ between islands, else a name shared by all.
        version: the step that it belongs to, and its lineage.
    """

    fqn: str
    kind: str
    dtype: str
    instance: str
    version: StateVersion

    @property
    def item_bytes(self) -> int:
        """Bytes of one element.

        Raises:
            PlanError: the dtype is none of ``DTYPE_BYTES``.
        """
        try:
            return DTYPE_BYTES[self.dtype]
        except KeyError:
            raise PlanError(
                f"{self}: expected a dtype of {', '.join(DTYPE_BYTES)}, found {self.dtype!r}",
                hint="convert the tensor to one of these dtypes before it is registered",
            ) from None

    def __str__(self) -> str:
        return f"{self.kind} of {self.fqn} ({self.dtype}, {self.instance}, step {self.version.step})"
