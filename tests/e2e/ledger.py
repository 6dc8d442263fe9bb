"""Exactly once, seen from outside: what the committed figures of a job must look like."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open


def assert_exact_ledger(figures: Sequence[Any], *, steps: int, sequences: int) -> None:
    """Every step of the surviving lineage is there once, in order, and each advanced the cursor by one batch."""
    assert [f.step for f in figures] == list(range(1, steps + 1))
    assert [f.cursor for f in figures] == [sequences * step for step in range(1, steps + 1)]
    assert all(a.lineage <= b.lineage for a, b in itertools.pairwise(figures))


def assert_same_samples(figures: Sequence[Any], undisturbed: Sequence[Any]) -> None:
    """Each step trained on the same samples as in the undisturbed run."""
    assert [f.sample_digest for f in figures] == [f.sample_digest for f in undisturbed]


def tensors_of(folder: Path) -> dict[str, bytes]:
    """Name to raw bytes of every tensor in the safetensors files of a folder (an export, or a checkpoint's data)."""
    tensors: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            tensors.update({name: file.get_tensor(name).tobytes() for name in file.keys()})  # noqa: SIM118
    assert tensors
    return tensors
