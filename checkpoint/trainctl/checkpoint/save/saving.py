"""Saving, the part that every rank does: what of the state it writes, and from which memory.

No step of it writes, so that copying and writing (``part_writing``) can move off the training thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from trainctl.checkpoint.differences import Difference, grouped
from trainctl.checkpoint.layout.copy_plan import CopyPlan, MissingRange, copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, replicated
from trainctl.checkpoint.layout.region import Flat, Region, common, region_to_runs, volume
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import byte_view, part_view
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES, Entry, cut
from trainctl.checkpoint.save.model_files import ModelFiles
from trainctl.core.errors import PlanError

Portion = Mapping[StateKey, tuple[Region, ...]]
"""What one rank writes: disjoint regions."""

EntryData = Mapping[Entry, torch.Tensor]
"""What to write, and the memory to write it from: until the write is over, nobody may change that."""

_SHOWN = 20


def assign(layout: Layout) -> Mapping[str, Portion]:
    """Deals every byte of the state to exactly one of the ranks that hold it, evenly in bytes: holder -> its portion.

    Every rank computes the same from the same layout, so nothing has to be exchanged.

    Raises:
        PlanError: parts of the state are held by nobody.
    """
    plan = copy_plan(layout, replicated(layout.shapes, ["file:all"]))
    if plan.missing:
        raise PlanError(
            "\n".join(["expected every part of the state on some rank, found:", *_lacking(layout, plan.missing)]),
            hint="see which rank was given another model, or not all of its state",
        )
    # No byte to deal, but the checkpoint has to know the tensor: from the first that has it.
    empty = {
        key: min(holder for holder, regions in placement.regions.items() if regions)
        for key, placement in layout.placements.items()
        if 0 in placement.shape
    }
    return _Assignment(plan, tuple(layout.holders), empty)


def _lacking(layout: Layout, missing: Sequence[MissingRange]) -> list[str]:
    """A line for tensors of which alike parts are missing."""
    keys = ((one.src_key, one.region) for one in missing)
    lines = grouped(
        Difference(key.kind, key.fqn, f"no rank holds {region} of {list(layout.shapes[key])}") for key, region in keys
    )
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


class _Assignment(Mapping[str, Portion]):
    """Each holder's portion, made when looked at: a rank needs only its own."""

    def __init__(self, plan: CopyPlan, holders: Sequence[str], empty: Mapping[StateKey, str]) -> None:
        self._plan = plan
        self._holders = dict.fromkeys(holders)
        self._empty = empty

    def __getitem__(self, holder: str) -> Portion:
        if holder not in self._holders:
            raise KeyError(holder)
        portion: dict[StateKey, list[Region]] = {}
        for t in self._plan.out_of(holder):
            portion.setdefault(t.src_key, []).append(t.region)
        found: dict[StateKey, tuple[Region, ...]] = {key: tuple(regions) for key, regions in portion.items()}
        return found | {key: (Flat(0, 0),) for key, first in self._empty.items() if first == holder}

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


def entries_of(
    state: LocalState, assigned: Portion, *, max_entry_bytes: int = MAX_FILE_BYTES
) -> Iterator[tuple[StateTensor, Entry]]:
    """The assigned regions as entries of data files, each with the live tensor that holds it."""
    for t in state.tensors:
        for region in assigned.get(t.key, ()):
            for part in common(t.shape, region, t.region) if volume(region) else (region,):
                for entry in cut(Entry(t.key, t.shape, part), max_entry_bytes):
                    yield t, entry


def live_data(state: LocalState, assigned: Portion, *, max_entry_bytes: int = MAX_FILE_BYTES) -> EntryData:
    """The assigned regions as views of the live tensors (copies only of tensors that are not contiguous)."""
    entries = entries_of(state, assigned, max_entry_bytes=max_entry_bytes)
    return {entry: part_view(t.tensor, t.shape, t.region, entry.region) for t, entry in entries}


def as_runs(data: EntryData, model_files: ModelFiles) -> Iterator[tuple[Entry, torch.Tensor]]:
    """The data with boxes of tensors that lie whole in files of the model as runs: there they do not lie together."""
    for entry, values in data.items():
        if isinstance(entry.region, Flat) or not model_files.holds(entry):
            yield entry, values
            continue
        rows, begin = values.reshape(-1), 0
        for run in region_to_runs(entry.shape, entry.region):
            yield Entry(entry.key, entry.shape, run), rows[begin : begin + run.volume]
            begin += run.volume


def blocks_of(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of an entry, as ``part_writing`` takes them."""
    body = byte_view(tensor.cpu().reshape(-1))
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
