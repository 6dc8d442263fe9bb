"""Saving, the part that every rank does: deal the work, take the snapshot, write a part (``part_writing``).

The steps are separate so that copying and writing can move off the training thread. Nothing counts before the seal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from trainctl.checkpoint import part_writing
from trainctl.checkpoint.attempts import Attempt
from trainctl.checkpoint.data_file import MAX_FILE_BYTES, Entry, cut
from trainctl.checkpoint.layout.copy_plan import CopyPlan, copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, replicated
from trainctl.checkpoint.layout.region import Flat, Shape, overlaps
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.model_files import ModelFiles
from trainctl.checkpoint.part_writing import unseen
from trainctl.checkpoint.state import LocalState, StateTensor
from trainctl.checkpoint.storage.port import Storage
from trainctl.checkpoint.tensors import byte_view, run_view
from trainctl.core.errors import PlanError
from trainctl.core.system.faults import FaultPlan

Runs = Mapping[StateKey, tuple[Flat, ...]]
"""What one rank writes."""

EntryData = Mapping[Entry, torch.Tensor]
"""What to write, and the memory to write it from: until the write is over, nobody may change that."""


def nothing() -> None:
    """There is nothing to do."""


def assign(layout: Layout) -> Mapping[str, Runs]:
    """Deals every byte of the state to exactly one of the ranks that hold it, evenly in bytes: holder -> its runs.

    Every rank computes the same from the same layout, so nothing has to be exchanged.

    Raises:
        PlanError: parts of the state are held by nobody.
    """
    plan = copy_plan(layout, replicated(layout.shapes, ["file:all"]))
    if plan.missing:
        ranges = "\n".join(str(m) for m in plan.missing[:20])
        raise PlanError(f"expected every part of the state on some rank, but\n{ranges}")
    # No byte to deal, but the checkpoint has to know the tensor: from the first that has it.
    empty = {
        key: min(holder for holder, regions in placement.regions.items() if regions)
        for key, placement in layout.placements.items()
        if 0 in placement.shape
    }
    return _Assignment(plan, tuple(layout.holders), empty)


class _Assignment(Mapping[str, Runs]):
    """Each holder's runs, made when looked at: a rank needs only its own."""

    def __init__(self, plan: CopyPlan, holders: Sequence[str], empty: Mapping[StateKey, str]) -> None:
        self._plan = plan
        self._holders = dict.fromkeys(holders)
        self._empty = empty

    def __getitem__(self, holder: str) -> Runs:
        if holder not in self._holders:
            raise KeyError(holder)
        runs: dict[StateKey, tuple[Flat, ...]] = {}
        for t in self._plan.out_of(holder):
            runs[t.src_key] = (*runs.get(t.src_key, ()), t.region)
        return runs | {key: (Flat(0, 0),) for key, first in self._empty.items() if first == holder}

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


def entries_of(
    state: LocalState, assigned: Runs, *, max_entry_bytes: int = MAX_FILE_BYTES
) -> Iterator[tuple[StateTensor, Entry]]:
    """The assigned runs as entries of data files, each with the live tensor that holds it."""
    for t in state.tensors:
        for run in assigned.get(t.key, ()):
            for part in [run] if run.volume == 0 else overlaps(t.shape, t.region, run):
                for entry in cut(Entry(t.key, t.shape, part), max_entry_bytes):
                    yield t, entry


def live_data(state: LocalState, assigned: Runs, *, max_entry_bytes: int = MAX_FILE_BYTES) -> EntryData:
    """The assigned runs as views of the live tensors (copies only of tensors that are not contiguous)."""
    entries = entries_of(state, assigned, max_entry_bytes=max_entry_bytes)
    return {entry: run_view(t.tensor, t.shape, t.region, entry.run) for t, entry in entries}


def write_part(
    storage: Storage,
    attempt: Attempt,
    *,
    writer: int,
    data: EntryData,
    shapes: Mapping[StateKey, Shape],
    faults: FaultPlan,
    alive: Callable[[], None],
    confirm: Callable[[], None] = nothing,
    wrote: Callable[[int], None] = unseen,
    max_file_bytes: int = MAX_FILE_BYTES,
    model_files: ModelFiles | None = None,
) -> PartReport:
    """As ``part_writing.write_part``, of tensors."""
    return part_writing.write_part(
        storage,
        attempt,
        writer=writer,
        entries=data,
        shapes=shapes,
        blocks=lambda entry: _blocks(data[entry]),
        faults=faults,
        alive=alive,
        confirm=confirm,
        wrote=wrote,
        max_file_bytes=max_file_bytes,
        model_files=model_files,
    )


def _blocks(tensor: torch.Tensor) -> Iterator[memoryview]:
    body = byte_view(tensor.contiguous().cpu())
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
