"""Several ranks in one process: random states cut into parts, saved together and loaded into another cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from trainctl.checkpoint.engine import Attempt, CheckpointWriter, assign, attempt_id
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import dtype_of
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES
from trainctl.checkpoint.save.saving import live_data
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan

SHAPES: Mapping[str, Shape] = {"w": (7, 5), "b": (5,), "scalar": (), "none": (0, 4), "one": (1,)}


def key(fqn: str, dtype: str = "F32", kind: str = "param", step: int = 1) -> StateKey:
    return StateKey(fqn, kind, dtype, "island-0", StateVersion(1, step))


def full_values(
    shapes: Mapping[str, Shape] = SHAPES, *, seed: int = 0, dtype: str = "F32"
) -> dict[StateKey, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for fqn, shape in shapes.items():
        # Random bits, not random numbers: NaN payloads, infinities and subnormals have to survive as well.
        size = math.prod(shape) * key(fqn, dtype).item_bytes
        bits = torch.randint(0, 2 if dtype == "BOOL" else 256, (size,), generator=generator, dtype=torch.uint8)
        values[key(fqn, dtype)] = bits.view(dtype_of(dtype)).reshape(shape)
    return values


def part_of(value: torch.Tensor, region: Region) -> torch.Tensor:
    if isinstance(region, Flat):
        flat = value.reshape(-1)[region.start : region.stop].clone()
        return flat.reshape(value.shape) if region == whole(tuple(value.shape)) else flat
    for dim, (start, length) in enumerate(zip(region.offsets, region.lengths, strict=True)):
        value = value.narrow(dim, start, length)
    return value.clone()


def rank_state(
    values: Mapping[StateKey, torch.Tensor], layout: Layout, holder: str, *, blank: bool = False
) -> LocalState:
    tensors = []
    for state_key, regions in layout.holders[holder].items():
        for region in regions:
            live = part_of(values[state_key], region)
            if blank:
                live = torch.zeros_like(live)
            tensors.append(StateTensor(state_key, tuple(values[state_key].shape), region, live))
    return LocalState(tuple(tensors), {"cursor": 12, "loss": 0.1})


def plain(values: Mapping[StateKey, torch.Tensor], ranks: int) -> Layout:
    return replicated({k: tuple(v.shape) for k, v in values.items()}, [rank_holder(r) for r in range(ranks)])


def rows(values: Mapping[StateKey, torch.Tensor], ranks: int, *, dim: int = 0) -> Layout:
    """Every tensor cut along one dim, unevenly where it does not divide; 0-d tensors on rank 0."""
    shapes = {k: tuple(v.shape) for k, v in values.items()}
    holders: dict[str, dict[StateKey, tuple[Region, ...]]] = {rank_holder(r): {} for r in range(ranks)}
    for state_key, shape in shapes.items():
        if len(shape) <= dim:
            holders[rank_holder(0)][state_key] = (whole(shape),)
            continue
        step = -(-shape[dim] // ranks)
        for r in range(ranks):
            start = min(shape[dim], r * step)
            offsets = tuple(start if d == dim else 0 for d in range(len(shape)))
            lengths = tuple(min(step, n - start) if d == dim else n for d, n in enumerate(shape))
            holders[rank_holder(r)][state_key] = (Box(offsets, lengths),)
    return Layout(shapes, holders)


def flats(values: Mapping[StateKey, torch.Tensor], ranks: int) -> Layout:
    """Every tensor cut into flat ranges that respect no row."""
    shapes = {k: tuple(v.shape) for k, v in values.items()}
    holders: dict[str, dict[StateKey, tuple[Region, ...]]] = {rank_holder(r): {} for r in range(ranks)}
    for state_key, shape in shapes.items():
        n = math.prod(shape)
        for r in range(ranks):
            holders[rank_holder(r)][state_key] = (Flat(n * r // ranks, n * (r + 1) // ranks),)
    return Layout(shapes, holders)


def attempt(step: int = 1, *, lineage: int = 1, epoch: int = 1, job: str = "job-a", nonce: str = "n") -> Attempt:
    name = attempt_id(job, lineage, epoch, nonce, step, lineage=lineage)
    return Attempt(job=job, step=step, lineage=lineage, epoch=epoch, attempt=name)


def save(
    uri: Path | str,
    values: Mapping[StateKey, torch.Tensor] | None = None,
    *,
    layout: Layout | None = None,
    of: Attempt | None = None,
    parent: CheckpointRef | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    artifacts: Mapping[str, bytes] | None = None,
    aliases: Mapping[str, str] | None = None,
    files: str = "chunked",
) -> CheckpointRef:
    values = full_values() if values is None else values
    layout = layout or plain(values, 2)
    of = of or attempt()
    writer = CheckpointWriter(str(uri), faults=FaultPlan(), max_file_bytes=max_file_bytes, layout=files)
    reports = save_parts(writer, values, layout, of, max_entry_bytes=max_file_bytes)
    state = LocalState(
        tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in values.items()),
        {"cursor": 12, "loss": 0.1},
        artifacts or {},
        aliases or {},
    )
    return writer.seal(of, state=state, parts=reports, parent=parent)


def save_parts(
    writer: CheckpointWriter,
    values: Mapping[StateKey, torch.Tensor],
    layout: Layout,
    of: Attempt,
    *,
    max_entry_bytes: int = MAX_FILE_BYTES,
) -> Sequence[PartReport]:
    assignment = assign(layout)
    return [
        writer.write_part(
            of,
            writer=r,
            data=live_data(rank_state(values, layout, holder), assignment[holder], max_entry_bytes=max_entry_bytes),
            shapes=layout.shapes,
        )
        for r, holder in enumerate(sorted(layout.holders))
    ]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    left, right = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(left.view(torch.uint8), right.view(torch.uint8))


def at_step(values: Mapping[StateKey, torch.Tensor], step: int) -> dict[StateKey, torch.Tensor]:
    return {k._replace(version=StateVersion(1, step)): v for k, v in values.items()}
