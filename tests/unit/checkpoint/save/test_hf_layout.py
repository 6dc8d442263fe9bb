"""Layout ``hf``: the model of a live checkpoint is what stock readers of Hugging Face folders expect.

Without it other tools could not open what a job saves, or read wrong weights.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from trainctl.checkpoint.engine import CheckpointWriter, assign, load
from trainctl.checkpoint.export import export_checkpoint
from trainctl.checkpoint.kept.catalog import artifact, inspect, newest
from trainctl.checkpoint.kept.retention import discard
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import whole
from trainctl.checkpoint.library import save as save_module
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.monitor import CHECKSUM, SYNC
from trainctl.checkpoint.save.model_files import ModelFiles
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.stopwatch import Stopwatch
from trainctl.core.errors import CheckpointError, PlanError, UsageError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.damaging import flip
from unit.checkpoint.ranks import attempt, flats, full_values, key, plain, rank_state, rows, same_bits, save

Values = Mapping[StateKey, torch.Tensor]
SHAPES = {"w": (37, 5), "b": (5,), "scalar": (), "none": (0, 4), "one": (1,), "wide": (3, 50)}


def values() -> dict[StateKey, torch.Tensor]:
    """Parameters of several dtypes, a buffer, and moments."""
    return {
        **full_values(SHAPES),
        key("half", "BF16"): torch.randn(7, 3).bfloat16(),
        key("running", "I64", "buffer"): torch.arange(9),
        key("flags", "BOOL", "buffer"): torch.tensor([True, False, True]),
        **{key(fqn, kind="exp_avg"): torch.randn(shape) for fqn, shape in SHAPES.items()},
    }


def model_of(saved: Values) -> dict[str, torch.Tensor]:
    return {k.fqn: v for k, v in saved.items() if k.kind in ("param", "buffer")}


def stock(folder: Path) -> dict[str, torch.Tensor]:
    """As any program reads such a folder, with nothing of ours."""
    found: dict[str, torch.Tensor] = {}
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"] if index.exists() else None
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["format"] == "pt"
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
            assert names is None or all(names[name] == path.name for name in file.keys())  # noqa: SIM118
    assert names is None or names.keys() == found.keys()
    return found


def assert_loads(ref: CheckpointRef, saved: Values) -> None:
    state = rank_state(saved, plain(saved, 1), rank_holder(0), blank=True)
    load(ref, state)
    assert all(same_bits(t.tensor, saved[t.key]) for t in state.tensors)


@pytest.mark.parametrize("max_file_bytes", [5 << 30, 400, 1])
@pytest.mark.parametrize("cut", [plain, rows, flats, lambda v, n: rows(v, n, dim=1)])
def test_stock_readers_and_ours_find_the_same_bits(
    tmp_path: Path, cut: Callable[[Values, int], Layout], max_file_bytes: int
) -> None:
    saved = values()
    ref = save(tmp_path, saved, layout=cut(saved, 3), files="hf", max_file_bytes=max_file_bytes)
    found = stock(Path(ref.uri))
    expected = model_of(saved)
    assert found.keys() == expected.keys()
    assert all(same_bits(found[name], value) for name, value in expected.items())
    assert_loads(ref, saved)
    report = verify(ref)
    on_disk = [path for path in Path(ref.uri).rglob("*") if path.is_file()]
    assert (report.damage, report.files) == ((), len(on_disk))
    sizes = sum(path.stat().st_size for path in on_disk if path.name != "manifest.json")
    assert report.size_bytes == sizes
    root = inspect(ref.uri).manifest
    assert (root.layout, root.index is None) == ("hf", max_file_bytes > 400)


def test_progress_counts_a_shared_file_once(tmp_path: Path) -> None:
    ref = save(tmp_path, values(), layout=rows(values(), 3), files="hf", max_file_bytes=400)
    seen: list[tuple[int, int]] = []
    for damaged in (False, True):
        if damaged:
            flip(next(Path(ref.uri).glob("model-*.safetensors")), -1)
        seen.clear()
        found = verify(ref, progress=lambda done, total: seen.append((done, total)))
        assert bool(found.damage) == damaged
        assert seen == sorted(seen)
        assert seen[-1] == (found.size_bytes, found.size_bytes)


@pytest.mark.parametrize("files", ["chunked", "hf"])
def test_what_a_writer_writes_is_counted_and_timed_in_either_layout(tmp_path: Path, files: str) -> None:
    saved = values()
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan(), layout=files)
    state = rank_state(saved, plain(saved, 1), rank_holder(0))
    data = live_data(state, assign(plain(saved, 1))[rank_holder(0)])
    watch, counted = Stopwatch(), [0]
    with watch.measuring():
        report = writer.write_part(
            attempt(), writer=0, data=data, shapes=state.shapes(), wrote=lambda size: counted.append(size)
        )
    assert sum(counted) == report.data_bytes > 0
    assert set(watch.seconds) == {CHECKSUM, SYNC}
    assert min(watch.seconds.values()) > 0


def test_moments_stay_with_their_writers(tmp_path: Path) -> None:
    saved = values()
    ref = save(tmp_path, saved, files="hf")
    names = set()
    for path in (Path(ref.uri) / "data").iterdir():
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    assert names
    assert all(name.startswith("optim.exp_avg.") for name in names)


def test_artifacts_lie_beside_the_model_unless_their_name_is_taken(tmp_path: Path) -> None:
    artifacts = {"config.json": b"{}", "sub/vocab.txt": b"a", "manifest.json": b"mine", "model.safetensors": b"mine"}
    artifacts |= {"artifacts/x": b"y", "pinned": b"z"}
    ref = save(tmp_path, full_values(), files="hf", artifacts=artifacts)
    assert (Path(ref.uri) / "config.json").read_bytes() == b"{}"
    assert (Path(ref.uri) / "sub/vocab.txt").read_bytes() == b"a"
    assert not (Path(ref.uri) / "pinned").exists()
    assert {name: artifact(ref, name, max_bytes=99) for name in artifacts} == artifacts
    assert newest(str(tmp_path)) == ref
    out = export_checkpoint(str(tmp_path), str(tmp_path / "out"))
    assert "model.safetensors.index.json" not in out.files
    discard(ref)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("position", [0, 100, -1])
def test_damage_of_a_shared_file_is_found(tmp_path: Path, position: int) -> None:
    saved = values()
    ref = save(tmp_path, saved, files="hf")
    path = Path(ref.uri) / "model.safetensors"
    flip(path, position)
    (problem, *_) = verify(ref).damage
    assert "model.safetensors is corrupt" in problem
    with pytest.raises(CheckpointError, match=r"model\.safetensors is corrupt"):
        assert_loads(ref, saved)
    path.write_bytes(path.read_bytes()[:-1])
    assert newest(str(tmp_path)) is None
    assert "model.safetensors is truncated" in verify(ref).damage[0]


def test_a_changed_index_is_found(tmp_path: Path) -> None:
    ref = save(tmp_path, values(), files="hf", max_file_bytes=100)
    flip(Path(ref.uri) / "model.safetensors.index.json", 30)
    (problem,) = verify(ref).damage
    assert "model.safetensors.index.json is corrupt" in problem


def test_a_writer_that_fails_and_tries_again_harms_no_other(tmp_path: Path) -> None:
    saved = full_values()
    layout, of = plain(saved, 2), attempt()
    assigned = assign(layout)
    writer = CheckpointWriter(str(tmp_path), faults=FaultPlan(), layout="hf")

    def part(rank: int, alive: Callable[[], None] = lambda: None) -> object:
        state = rank_state(saved, layout, rank_holder(rank))
        own = assigned[rank_holder(rank)]
        from trainctl.checkpoint.save.saving import live_data

        return writer.write_part(of, writer=rank, data=live_data(state, own), shapes=layout.shapes, alive=alive)

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(CheckpointError, match="as writer 0"):
        part(0, refuse)
    second = part(1)
    with pytest.raises(CheckpointError, match="as writer 0"):
        part(0, refuse)
    first = part(0)
    state = LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in saved.items()))
    ref = writer.seal(of, state=state, parts=[second, first], parent=None)  # type: ignore[list-item]
    assert not verify(ref).damage
    assert_loads(ref, saved)


def test_a_storage_without_ranged_writes_is_refused_before_anything_is_written() -> None:
    with pytest.raises(CheckpointError, match="expected a folder on disk for layout hf") as caught:
        CheckpointWriter("memory://nowhere/hf", faults=FaultPlan(), layout="hf")
    assert "trainctl checkpoints export" in caught.value.hint


def test_a_layout_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected layout chunked or hf, found 'zarr'"):
        CheckpointWriter(str(tmp_path), faults=FaultPlan(), layout="zarr")


def test_every_entry_has_a_place_of_its_own() -> None:
    saved = values()
    shapes = {k: tuple(v.shape) for k, v in saved.items()}
    files = ModelFiles(attempt(), shapes, max_file_bytes=300)
    assert [file.path for file in files.files] == [
        f"model-{i:05d}-of-{len(files.files):05d}.safetensors" for i in range(1, len(files.files) + 1)
    ]
    bodies = sum(file.size_bytes - len(file.header) for file in files.files)
    assert bodies == sum(math.prod(s) * k.item_bytes for k, s in shapes.items() if k.kind != "exp_avg")
    twice = {k._replace(instance="island-1"): shape for k, shape in shapes.items() if k.kind == "param"}
    names = ", ".join(sorted(k.fqn for k in twice))
    with pytest.raises(PlanError, match=f"every tensor of the model, found more than once: {names}\n"):
        ModelFiles(attempt(), {**shapes, **twice})


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_the_folder_of_a_checkpoint(tmp_path: Path, tied: bool) -> None:
    transformers: Any = importlib.import_module("transformers")  # its types are not of use here
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(**shape, num_attention_heads=2, tie_word_embeddings=tied)
    model = transformers.LlamaForCausalLM(config).eval()
    artifacts = {"config.json": config.to_json_string().encode()}
    ref = save_module(str(tmp_path), model=model, step=1, artifacts=artifacts, layout="hf")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(ref.uri, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
