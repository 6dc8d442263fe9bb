"""The table of contents: with it a rank reads less, and finds the same.

Without it every rank would read every manifest, which takes longer than the data.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.engine import CheckpointWriter, load
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Box, Flat, Shape, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.load.block_read import BlockRead
from trainctl.checkpoint.load.blocks import BlockReader
from trainctl.checkpoint.load.loading import LoadPlan, plan_load
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.manifest.codec import sha256
from trainctl.checkpoint.manifest.contents import contents_of, held_rows
from trainctl.checkpoint.manifest.names import CONTENTS, ROOT_MANIFEST
from trainctl.checkpoint.manifest.reading import files_layout, read_contents, read_parts, read_root
from trainctl.checkpoint.manifest.records import HeldRows, PartReport, RootManifest
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.layouts import layouts, shapes
from unit.checkpoint.memory_exchange import MemoryExchange, PostOffice
from unit.checkpoint.ranks import (
    attempt,
    flats,
    full_values,
    key,
    part_of,
    plain,
    rank_state,
    rows,
    same_bits,
    save,
    save_parts,
)
from unit.checkpoint.resealing import resealed, without_table

MODEL = {f"layers.{n}.{name}": shape for n in range(30) for name, shape in {"up": (8, 4), "down": (4, 8)}.items()}


def with_table(ref: CheckpointRef, change: Mapping[str, object]) -> CheckpointRef:
    """The same attempt with other fields in its table of contents."""
    path = Path(ref.uri) / CONTENTS
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    stored = path.read_bytes()

    def listed(root: RootManifest) -> RootManifest:
        assert root.contents is not None
        table = dataclasses.replace(root.contents, size_bytes=len(stored), sha256=sha256(stored))
        return dataclasses.replace(root, contents=table)

    return resealed(ref, listed)


def outcome(ref: CheckpointRef, state: LocalState, everything: Mapping[StateKey, Shape]) -> str:
    """What is wrong when it is loaded; empty if nothing is."""
    try:
        load(ref, state, everything=everything)
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def reads_of(monkeypatch: pytest.MonkeyPatch, ref: CheckpointRef, state: LocalState) -> Sequence[BlockRead]:
    """The blocks that are read for a state."""
    found: list[BlockRead] = []
    with monkeypatch.context() as patched:
        real = BlockReader.read_at_once

        def noting(reader: BlockReader, reads: Sequence[BlockRead], *rest: Any, **named: Any) -> None:
            found.extend(reads)
            real(reader, reads, *rest, **named)

        patched.setattr(BlockReader, "read_at_once", noting)
        load(ref, state, everything=state.shapes(), kinds=("param",), verify_first=False)
    return found


@st.composite
def changed(draw: st.DrawFn, state: LocalState) -> LocalState:
    """A state that may want other tensors than were saved."""
    ways = st.sampled_from(["same", "same", "same", "name", "dtype", "shape", "gone"])
    done = {state_key: draw(ways) for state_key in state.shapes()}
    tensors = []
    for tensor in state.tensors:
        match done[tensor.key]:
            case "name":
                other_key = tensor.key._replace(fqn=f"{tensor.key.fqn}.other")
                tensors.append(dataclasses.replace(tensor, key=other_key))
            case "dtype":
                live = torch.zeros(tensor.tensor.shape, dtype=torch.float64)
                tensors.append(StateTensor(tensor.key._replace(dtype="F64"), tensor.shape, tensor.region, live))
            case "shape":
                other = (*tensor.shape, 3)
                tensors.append(StateTensor(tensor.key, other, whole(other), torch.zeros(other)))
            case "same":
                tensors.append(tensor)
    return dataclasses.replace(state, tensors=tuple(tensors))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_with_and_without_the_table_the_same_is_read_and_refused(data: st.DataObject) -> None:
    table = {name: data.draw(shapes) for name in ("a", "b", "c")}
    values = full_values(table, seed=data.draw(st.integers(0, 9)))
    keys = {k: tuple(v.shape) for k, v in values.items()}
    ragged = data.draw(layouts(keys, "rank", max_holders=4))
    everywhere = {rank_holder(9): {k: (whole(s),) for k, s in keys.items()}}
    held = {h: {k: ragged.parts(h, k) for k in held} for h, held in ragged.holders.items()} | everywhere
    limit = data.draw(st.sampled_from([7, 50, 1 << 20]))
    new = save(f"memory://{uuid.uuid4()}", values, layout=Layout(keys, held), max_file_bytes=limit)
    target = data.draw(layouts(keys, "rank", max_holders=3))
    states = [rank_state(values, target, holder, blank=True) for holder in target.holders]
    others = [data.draw(changed(state)) for state in states]
    with pytest.MonkeyPatch.context() as patch:
        before = [(plan_load(new, s).files, reads_of(patch, new, s)) for s in states if set(s.shapes()) == set(keys)]
        said = [outcome(new, state, state.shapes()) for state in others]
        for state in states:
            load(new, state, everything=keys)
            assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)
        old = without_table(new)
        after = [(plan_load(old, s).files, reads_of(patch, old, s)) for s in states if set(s.shapes()) == set(keys)]
    assert after == before
    assert [outcome(old, state, state.shapes()) for state in others] == said


@pytest.mark.parametrize("files", ["chunked", "hf"])
@pytest.mark.parametrize("cut", [rows, flats, plain])
def test_both_layouts_and_all_cuts_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Callable[..., Layout], files: str
) -> None:
    values = full_values(MODEL)
    ref = save(tmp_path, values, layout=cut(values, 4), files=files)
    state = rank_state(values, rows(values, 3), rank_holder(1), blank=True)
    with_table = reads_of(monkeypatch, ref, state)
    assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)
    assert with_table
    assert reads_of(monkeypatch, without_table(ref), state) == with_table


def manifests_read(
    monkeypatch: pytest.MonkeyPatch, ref: CheckpointRef, state: LocalState, plan: LoadPlan | None = None
) -> list[str]:
    found: list[str] = []
    with monkeypatch.context() as patched:
        real = LocalStorage.read

        def noting(storage: LocalStorage, path: str, **named: Any) -> bytes:
            found.append(path)
            return real(storage, path, **named)

        patched.setattr(LocalStorage, "read", noting)
        load(ref, state, everything=state.shapes(), plan=plan)
    return sorted(found)


def test_a_rank_reads_no_manifests_but_those_of_the_parts_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = full_values({"w": (64, 2), "b": (64,)})
    ref = save(tmp_path, values, layout=rows(values, 16))
    state = rank_state(values, rows(values, 16), rank_holder(5), blank=True)
    assert manifests_read(monkeypatch, ref, state) == [ROOT_MANIFEST, CONTENTS, "parts/w00011.json"]
    smaller = rank_state(values, rows(values, 32), rank_holder(5), blank=True)
    assert len(manifests_read(monkeypatch, ref, smaller)) == 3
    everything = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    assert len(manifests_read(monkeypatch, ref, everything)) == 2 + 16
    assert len(manifests_read(monkeypatch, without_table(ref), state)) == 1 + 16


def test_what_was_planned_before_is_not_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = full_values()
    ref = save(tmp_path, values, layout=flats(values, 3))
    state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    assert manifests_read(monkeypatch, ref, state, plan_load(ref, state)) == []
    assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)


def test_what_is_not_read_is_not_verified_by_a_load_but_has_to_be_there(tmp_path: Path) -> None:
    values = full_values({"w": (4, 3)})
    ref = save(tmp_path, values, layout=rows(values, 2))
    state = rank_state(values, rows(values, 2), rank_holder(0), blank=True)
    other = Path(ref.uri) / "parts/w00001.json"
    whole_part = other.read_bytes()
    other.write_bytes(b"x" + whole_part[1:])
    load(ref, state, everything=values)
    assert ["parts/w00001.json is corrupt" in line for line in verify(ref).damage] == [True]
    other.unlink()
    with pytest.raises(CheckpointError, match=r"w00001.json is missing"):
        load(ref, state, everything=values)
    load(ref, state, everything=values, all_here=False)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.unlink(), "contents.json is missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "contents.json is truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:-2] + b" }"), "contents.json is corrupt: expected sha256"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    values = full_values()
    ref = save(tmp_path, values)
    damage(Path(ref.uri) / CONTENTS)
    state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(ref, state)
    assert caught.value.hint
    with pytest.raises(CheckpointError, match=r"contents\.json is"):
        load(ref, state, all_here=False)
    assert any("contents.json" in line for line in verify(ref).damage)
    assert not any(t.tensor.view(torch.uint8).any() for t in state.tensors if t.tensor.dim())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attempt": "0" * 16}, "expected a part of attempt"),
        ({"placed": []}, r"contents.json is malformed: tensors\[0\]"),
        ({"placed": [{"writers": [0, 1], "starts": [0], "stops": [35]}] * 9}, r"malformed: placed\[0\]"),
        ({"placed": [{"writers": [0], "starts": [0], "stops": [35], "boxes": []}] * 9}, r"malformed: placed\[0\]"),
        (
            {"placed": [{"writers": [0], "starts": [0], "stops": [35], "boxes": [[0, 0, 7]]}] * 9},
            r"tensors\[0\] does not fit its boxes",
        ),
        ({"placed": [{"writers": ["zero"], "starts": [0], "stops": [35]}] * 9}, r"writers\[0\]: expected int"),
        ({"placed": [{"writers": [7], "starts": [0], "stops": [1]}] * 9}, "does not hold all of the state"),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, change: Mapping[str, object], words: str) -> None:
    values = full_values({"a": (35,), "b": (7, 5)})
    ref = save(tmp_path, values)
    with pytest.raises(CheckpointError, match=words):
        load(with_table(ref, change), rank_state(values, plain(values, 1), rank_holder(0), blank=True))


def test_the_rank_that_lacks_something_is_named(tmp_path: Path) -> None:
    values = full_values({"w": (6, 4)})
    ref = with_table(
        save(tmp_path, values, layout=rows(values, 2)), {"placed": [{"writers": [0], "starts": [0], "stops": [12]}]}
    )
    wanted = rows(values, 2)
    state = rank_state(values, wanted, rank_holder(1), blank=True)
    sharing = Sharing(MemoryExchange(PostOffice(2), 1), wanted)
    with pytest.raises(CheckpointError, match="rank:1 has no source for"):
        plan_load(ref, state, sharing=sharing)


def test_a_part_with_a_tensor_in_another_shape_than_the_table_is_refused(tmp_path: Path) -> None:
    ref = save(tmp_path, full_values({"w": (4, 3)}))
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)
    with pytest.raises(CheckpointError, match=r"part of writer 0: expected shape \[3, 4\]"):
        files_layout(root, read_parts(storage, root), {key("w"): (3, 4)})


def test_a_writer_of_an_older_version_leaves_a_checkpoint_without_a_table(tmp_path: Path) -> None:
    values = full_values()
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan())
    said = save_parts(writer, values, plain(values, 2), attempt())
    older: list[PartReport] = [said[0], dataclasses.replace(said[1], held=None)]
    state = rank_state(values, plain(values, 1), rank_holder(0))
    ref = writer.seal(attempt(), state=state, parts=older, parent=None)
    storage = open_storage(ref.uri)
    assert read_contents(storage, read_root(storage)[0]) is None
    load(ref, state)


SHAPES = {key("a"): (4, 2), key("b"): (4, 2), key("c"): (3,)}
LEFT, RIGHT = (0, 0, 4, 1), (0, 1, 4, 1)
"""The columns of a."""


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({0: ((0, 1, 0, 3),)}, "element of param of a .* found none in any"),
        ({0: ((0, 1, 0, 3), (1, 2, 0, 4)), 1: ((1, 1, 4, 8),)}, "element of param of b .* found 0:4 in part 0"),
        ({0: ((0, 1, 0, 3), (1, 2, 0, 5)), 1: ((1, 2, 4, 8),)}, "element of param of a .* 0:5 in part 0, 4:8 in"),
        ({0: ((0, 1, 1, 3), (1, 2, 0, 8))}, "element of param of c .* found 1:3 in part 0"),
        ({0: ((0, 1, 0, 3), (1, 2, *LEFT))}, r"element of param of a .* found \[0:4, 0:1\] in part 0"),
        (
            {0: ((0, 1, 0, 3), (1, 2, *LEFT)), 1: ((1, 2, *LEFT),)},
            r"a .* \[0:4, 0:1\] in part 0, \[0:4, 0:1\] in part 1",
        ),
        ({0: ((0, 1, 0, 3), (1, 2, *LEFT)), 1: ((1, 2, *RIGHT), (1, 1, 0, 1))}, r"a .* 0:1 in part 1"),
    ],
)
def test_a_gap_or_an_overlap_is_no_checkpoint(held: Mapping[int, HeldRows], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        contents_of(SHAPES, held, tcf=1, step=1, attempt="x")


def test_thousands_of_tensors_that_lie_alike_are_a_few_rows() -> None:
    parts = 64
    layer = {"up": (640, 4), "down": (128, 8)}
    model = {
        key(f"layers.{n}.{name}", kind=kind): shape
        for n in range(200)
        for name, shape in layer.items()
        for kind in ("param", "exp_avg")
    }
    held = {
        writer: held_rows(
            model,
            (
                (state_key, Flat(writer * volume // parts, (writer + 1) * volume // parts))
                for state_key, shape in model.items()
                for volume in [shape[0] * shape[1]]
            ),
        )
        for writer in range(parts)
    }
    assert {len(rows) for rows in held.values()} == {2}
    contents = contents_of(model, held, tcf=1, step=1, attempt="x")
    assert len(contents.tensors) == len(contents.placed) == 2
    assert sum(len(alike.fqns) for alike in contents.tensors) == len(model)


def test_columns_of_thousands_of_tensors_are_a_row_and_a_box() -> None:
    model = {key(f"layers.{n}"): (64, 32) for n in range(100)}
    held = {
        writer: held_rows(
            model,
            (
                (state_key, Box((begin, 8 * writer), (32, 8)))  # cut over two files
                for state_key in model
                for begin in (0, 32)
            ),
        )
        for writer in range(4)
    }
    assert held[1] == ((0, 100, 0, 8, 64, 8),)
    (placed,) = contents_of(model, held, tcf=1, step=1, attempt="x").placed
    assert placed.boxes == tuple((0, 8 * writer, 64, 8) for writer in range(4))
    assert placed.regions == tuple(Box((0, 8 * writer), (64, 8)) for writer in range(4))
    # For readers that do not know boxes: all that lies between the first and the last element.
    assert (placed.starts[1], placed.stops[1]) == (8, 63 * 32 + 16)


def test_a_rank_with_columns_reads_no_manifests_of_other_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = full_values({"w": (16, 64)})
    ref = save(tmp_path, values, layout=rows(values, 16, dim=1))
    state = rank_state(values, rows(values, 16, dim=1), rank_holder(5), blank=True)
    own = sorted(rows(values, 16).holders).index(rank_holder(5))
    assert manifests_read(monkeypatch, ref, state) == [ROOT_MANIFEST, CONTENTS, f"parts/w{own:05d}.json"]
    with_table = reads_of(monkeypatch, ref, state)
    assert with_table
    assert reads_of(monkeypatch, without_table(ref), state) == with_table


def test_runs_of_a_tensor_that_touch_are_one() -> None:
    runs = [(key("a"), Flat(4, 8)), (key("a"), Flat(0, 4)), (key("b"), Flat(0, 8)), (key("c"), Flat(1, 1))]
    assert held_rows(SHAPES, runs) == ((1, 2, 0, 8),)
