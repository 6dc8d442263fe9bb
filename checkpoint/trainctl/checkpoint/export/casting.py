"""Changes the dtype of raw tensor bytes, rounding to nearest, ties to even."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trainctl.core.errors import UsageError

_NATIVE: Mapping[str, npt.DTypeLike] = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_FLOATS = (*_NATIVE, "BF16")


def target_dtype(source: str, wanted: str) -> str:
    """What a tensor of dtype ``source`` becomes when ``wanted`` is asked for: only floating-point tensors change.

    Raises:
        UsageError: this version cannot cast from one to the other.
    """
    if not wanted or source not in _FLOATS or source == wanted:
        return source
    if wanted == "BF16" and source == "F64":
        raise UsageError(
            "expected to cast F16 or F32 to BF16, found a tensor of F64, which would be rounded twice",
            hint="export it with --dtype float32",
        )
    return wanted


def cast_bytes(data: memoryview, source: str, target: str) -> memoryview:
    """The same numbers in another dtype; the bytes themselves if the dtypes are equal."""
    if source == target:
        return data
    if source == "BF16":
        values: npt.NDArray[Any] = _widen_bfloat16(np.frombuffer(data, np.uint16))
    else:
        values = np.frombuffer(data, _NATIVE[source])
    with np.errstate(over="ignore", invalid="ignore"):  # out of range becomes infinite, as in torch
        if target == "BF16":
            cast: npt.NDArray[Any] = _round_to_bfloat16(values.astype(np.float32))
        else:
            cast = values.astype(_NATIVE[target])
    return memoryview(cast.view(np.uint8).data)


def _widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """A bfloat16 is the upper half of the float32 with the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round_to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Adds just under half a unit of the last place that stays, and one more where that place is odd."""
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    quiet = ((bits >> 16) | 0x40).astype(np.uint16)  # the sum could carry a NaN over to zero
    return np.where(np.isnan(values), quiet, rounded)
