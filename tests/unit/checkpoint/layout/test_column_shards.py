"""What ranks hold by columns is saved as blocks: a few entries, readable by others, and loaded into any other cut.

Without it tensor-parallel weights could be saved in thousands of slivers, or come back in wrong places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trainctl.checkpoint.engine import CheckpointWriter, assign, load
from trainctl.checkpoint.export import export_checkpoint, source
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Box, Flat, region_to_runs, volume
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.load.blocks import BlockReader
from trainctl.checkpoint.load.filling import Filling
from trainctl.checkpoint.manifest.reading import read_parts, read_root
from trainctl.checkpoint.save import part_writing
from trainctl.checkpoint.save.data_file import Entry, cut
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.snapshot import stowage
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import PlanError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.ranks import attempt, flats, full_values, key, part_of, plain, rank_state, rows, same_bits, save

Values = Mapping[StateKey, torch.Tensor]
SHAPES = {"down": (48, 40), "o": (16, 24), "experts": (3, 8, 10), "norm": (16,), "scalar": ()}


def columns(values: Values, ranks: int) -> Layout:
    return rows(values, ranks, dim=1)


CUTS: dict[str, Callable[[Values, int], Layout]] = {"plain": plain, "rows": rows, "columns": columns, "flats": flats}


def assert_loads(ref: CheckpointRef, values: Values, layout: Layout) -> None:
    for holder in layout.holders:
        state = rank_state(values, layout, holder, blank=True)
        load(ref, state, everything=values)
        assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)


def test_a_shard_is_one_entry_of_its_own_shape_for_any_reader(tmp_path: Path) -> None:
    values = full_values({"down": (8192, 16), "deep": (64, 6, 4)})
    folder = Path(save(tmp_path, values, layout=columns(values, 2)).uri)
    with safe_open(folder / "data/w00001-000.safetensors", framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    assert found.keys() == {"down@@box:0:8192,8:16", "deep@@box:0:64,3:6,0:4"}
    assert same_bits(found["down@@box:0:8192,8:16"], values[key("down")][:, 8:16])
    assert same_bits(found["deep@@box:0:64,3:6,0:4"], values[key("deep")][:, 3:6])
    root, _ = read_root(LocalStorage(folder))
    for part in read_parts(LocalStorage(folder), root):
        assert [len(tensor.chunks) for tensor in part.tensors] == [1, 1]
        assert part.files[0].header_bytes == 4096


@pytest.mark.parametrize("after", CUTS)
def test_checkpoints_with_an_entry_for_each_row_still_load(tmp_path: Path, after: str) -> None:
    """As versions before wrote columns."""
    values = full_values(SHAPES)
    layout, of = columns(values, 3), attempt()
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    reports = []
    for rank, (holder, portion) in enumerate(assign(layout).items()):
        runs = {
            k: tuple(run for r in held for run in region_to_runs(layout.shapes[k], r)) for k, held in portion.items()
        }
        state = rank_state(values, layout, holder)
        reports.append(writer.write_part(of, writer=rank, data=live_data(state, runs), shapes=layout.shapes))
    assert len(reports[0].held or ()) > 48
    ref = writer.seal(of, state=rank_state(values, plain(values, 1), rank_holder(0)), parts=reports, parent=None)
    assert_loads(ref, values, CUTS[after](values, 2))


@pytest.mark.parametrize("after", CUTS)
@pytest.mark.parametrize("limit", [56, 300, 1 << 20])
def test_shards_that_are_cut_over_files_and_blocks_load_into_any_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str, limit: int
) -> None:
    monkeypatch.setattr(part_writing, "BLOCK_BYTES", 32)
    values = full_values(SHAPES)
    ref = save(tmp_path, values, layout=columns(values, 3), max_file_bytes=limit)
    assert_loads(ref, values, CUTS[after](values, 2))


def test_the_same_shard_is_read_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writing, "BLOCK_BYTES", 64)  # which ends within rows
    values = full_values({"down": (48, 40), "deep": (8, 6, 4)})
    layout = columns(values, 2)
    ref = save(tmp_path, values, layout=layout)
    taken: list[object] = []
    monkeypatch.setattr(Filling, "_take", lambda self, read, data: taken.append(read))
    assert_loads(ref, values, layout)
    assert not taken


def test_a_load_reads_nothing_twice_and_no_columns_that_it_does_not_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = full_values({"down": (4096, 64)})
    ref = save(tmp_path, values, layout=columns(values, 4))
    read: list[str] = []
    real = BlockReader.plan

    def noting(reader: BlockReader, *given: object) -> object:
        found = real(reader, *given)  # type: ignore[arg-type]
        read.extend(block.path for block in found)
        assert sum(block.size for block in found) == 4096 * 32 * 4
        return found

    monkeypatch.setattr(BlockReader, "plan", noting)
    two = columns(values, 2)
    state = rank_state(values, two, rank_holder(1), blank=True)
    load(ref, state, everything=values)
    assert {*read} == {f"data/w0000{writer}-000.safetensors" for writer in (2, 3)}


def overlapping() -> tuple[Values, Layout]:
    """Both have the columns in the middle; what each writes is no whole row of what it holds."""
    values = full_values({"w": (60, 8), "deep": (4, 6, 5)})
    held = {
        rank_holder(0): {key("w"): (Box((0, 0), (60, 6)),), key("deep"): (Box((0, 0, 0), (4, 6, 3)),)},
        rank_holder(1): {key("w"): (Box((0, 4), (60, 4)),), key("deep"): (Box((0, 2, 1), (4, 4, 4)),)},
        rank_holder(2): {key("deep"): (Box((0, 0, 3), (4, 2, 2)),)},
    }
    return values, Layout({k: tuple(v.shape) for k, v in values.items()}, held)


@pytest.mark.parametrize("chunk_bytes", [4, 28, 1 << 20])
def test_parts_that_do_not_lie_together_are_copied_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(stowage, "CHUNK_BYTES", chunk_bytes)
    values, layout = overlapping()
    apart = 0
    for holder, portion in assign(layout).items():
        state = rank_state(values, layout, holder)
        live = live_data(state, portion)
        apart += sum(view.dim() > 1 for view in live.values())
        buffer = HostPool(1).take((stowed := stowage.stow(state, portion)).size_bytes)
        assert buffer is not None
        taken = Snapshot(state, stowed, buffer)
        taken.copy()
        assert taken.fence(0.0)
        assert taken.data.keys() == live.keys()
        for entry, copy in taken.data.items():
            expected = part_of(values[entry.key], entry.region).reshape(-1)
            assert same_bits(copy, expected)
            assert same_bits(live[entry].reshape(-1), expected)
    assert apart
    ref = save(tmp_path, values, layout=layout)
    for cut_ in CUTS.values():
        assert_loads(ref, values, cut_(values, 3))


def test_a_shard_of_a_tensor_that_is_not_contiguous(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    layout = columns({key("w"): whole}, 2)
    tensors = [StateTensor(key("w"), (4, 6), Box((0, 3 * r), (4, 3)), whole[:, 3 * r : 3 * r + 3]) for r in range(2)]
    assert not tensors[0].tensor.is_contiguous()
    portion = assign(layout)
    for rank, tensor in enumerate(tensors):
        (values,) = live_data(LocalState((tensor,)), portion[rank_holder(rank)]).values()
        assert torch.equal(values.reshape(4, 3), whole[:, 3 * rank : 3 * rank + 3])


@pytest.mark.parametrize("max_bytes", [4, 40, 100, 1000])
@pytest.mark.parametrize("region", [Box((0, 2), (50, 5)), Box((1, 0, 2), (3, 4, 3)), Flat(3, 90)])
def test_entries_are_cut_at_whole_rows(region: Box | Flat, max_bytes: int) -> None:
    shape = (50, 8) if not isinstance(region, Box) or len(region.lengths) == 2 else (5, 6, 7)
    entries = list(cut(Entry(key("w"), shape, region), max_bytes))
    assert all(entry.size_bytes <= max_bytes for entry in entries)
    assert len({entry.name for entry in entries}) == len(entries)
    numbers = torch.arange(400 if len(shape) == 2 else 210).reshape(shape)
    found = torch.cat([part_of(numbers, entry.region).reshape(-1) for entry in entries])
    assert torch.equal(found, part_of(numbers, region).reshape(-1))
    row = volume(region) // region.lengths[0] * 4 if isinstance(region, Box) else 4
    if max_bytes >= row:
        assert len(entries) == -(-volume(region) * 4 // (max_bytes - max_bytes % row))


@pytest.mark.parametrize("band_bytes", [12, 100, 1 << 20])
def test_the_export_puts_shards_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band_bytes: int) -> None:
    monkeypatch.setattr(source, "BAND_BYTES", band_bytes)
    monkeypatch.setattr(part_writing, "BLOCK_BYTES", 32)
    values = full_values(SHAPES)
    ref = save(tmp_path / "own", values, layout=columns(values, 3))
    export_checkpoint(ref.uri, str(tmp_path / "hf"))
    with safe_open(tmp_path / "hf" / "model.safetensors", framework="pt") as file:
        assert all(same_bits(file.get_tensor(k.fqn), value) for k, value in values.items())


def test_in_files_of_the_model_columns_lie_as_rows_of_the_whole(tmp_path: Path) -> None:
    values = full_values({"w": (6, 4)})
    folder = Path(save(tmp_path, values, layout=columns(values, 2), files="hf").uri)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert same_bits(file.get_tensor("w"), values[key("w")])
    parts = read_parts(LocalStorage(folder), read_root(LocalStorage(folder))[0])
    assert [chunk.region for part in parts for tensor in part.tensors for chunk in tensor.chunks] == [
        Flat(4 * row + 2 * rank, 4 * row + 2 * rank + 2) for rank in range(2) for row in range(6)
    ]
    writer = CheckpointWriter(str(tmp_path / "other"), faults=FaultPlan(), layout="hf")
    files = writer._model_files(attempt(), {key("w"): (6, 4)})
    assert files is not None
    with pytest.raises(PlanError, match=r"expected a flat range .* found \[0:6, 0:2\]"):
        files.place(Entry(key("w"), (6, 4), Box((0, 0), (6, 2))))
