"""Hugging Face folders become checkpoints, and what is wrong with one is said with its place.

Without it a pretrained model could come in with wrong or missing weights.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainctl.checkpoint.export import export_checkpoint
from trainctl.checkpoint.importing import Naming, import_checkpoint
from trainctl.checkpoint.kept.catalog import artifact, survey
from trainctl.checkpoint.kept.origin import Imported, origin_of
from trainctl.checkpoint.library import load
from trainctl.core.errors import CheckpointError, UsageError
from unit.checkpoint.hf_tensors import TENSORS, module


def hf_folder(folder: Path, *, shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "tokenizer.model").write_bytes(b"\x00tokens")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    if shards == 1:
        save_file(TENSORS, folder / "model.safetensors")
        return folder
    names = {name: f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index, name in enumerate(TENSORS)}
    for name, file in names.items():
        save_file({name: TENSORS[name]}, folder / file)
    write_index(folder, names)
    return folder


def write_index(folder: Path, names: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_comes_in_and_out_again_with_the_same_bits(tmp_path: Path, shards: int) -> None:
    report = import_checkpoint(str(hf_folder(tmp_path / "hf", shards=shards)), str(tmp_path / "own"), max_file_bytes=40)
    assert (report.tensors, report.data_bytes, report.optimizer) == (3, 48 + 10 + 48, False)
    assert origin_of(report.ref) == Imported(cursor=0, optimizer=False)
    assert artifact(report.ref, "config.json", max_bytes=99) == b'{"model_type": "tiny"}'
    assert artifact(report.ref, "pytorch_model.bin", max_bytes=99) is None
    into = module()
    load(str(tmp_path / "own"), model=into)
    assert all(torch.equal(into.state_dict()[name], value) for name, value in TENSORS.items())
    export_checkpoint(str(tmp_path / "own"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"\x00tokens"


def test_names_are_changed_only_as_asked(tmp_path: Path) -> None:
    source = str(hf_folder(tmp_path / "hf"))
    naming = Naming(strip_prefix="model.", exclude=("he*",))
    report = import_checkpoint(source, str(tmp_path / "own"), naming=naming)
    assert report.notes == ("left out by --exclude he*: 1 tensor",)
    into = nn.Module()
    into.a, into.b = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    load(str(tmp_path / "own"), model=into)
    assert torch.equal(into.a, TENSORS["model.a"])
    for wrong, found in (
        (Naming(strip_prefix="modle."), "found head, model.a"),
        (Naming(exclude=("x*",)), "found none"),
    ):
        with pytest.raises(UsageError, match=found):
            import_checkpoint(source, str(tmp_path / "no"), naming=wrong)


def refused(source: Path, match: str) -> None:
    target = source.parent / "own"
    with pytest.raises(CheckpointError, match=match):
        import_checkpoint(str(source), str(target))
    assert survey(str(target)).checkpoints == ()


def test_an_index_is_not_trusted(tmp_path: Path) -> None:
    source = hf_folder(tmp_path / "hf", shards=3)
    (tmp_path / "secret.safetensors").write_bytes((source / "model-00001-of-00003.safetensors").read_bytes())
    os.symlink(tmp_path / "secret.safetensors", source / "link.safetensors")
    for path in (
        "../secret.safetensors",
        str(tmp_path / "secret.safetensors"),
        "link.safetensors",
        "x//y",
        "..",
        "a\0b",
    ):
        write_index(source, {"model.a": path})
        refused(source, "model.safetensors.index.json names a file outside of the folder")
    write_index(source, {"model.a": "model-00009-of-00003.safetensors"})
    refused(source, "index.json names model-00009-of-00003.safetensors, which is not there")
    write_index(source, {"model.a": "model-00002-of-00003.safetensors"})
    refused(source, "index.json names model.a in model-00002-of-00003.safetensors, which does not hold it")
    wrong: list[Any] = [[], {}, {"model.a": 3}]
    for nonsense in wrong:
        write_index(source, nonsense)
        refused(source, "expected a weight_map of file names")
    (source / "model.safetensors.index.json").write_bytes(b"[" * 100_000)
    refused(source, "index.json: expected a JSON object")


def test_a_linked_configuration_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    source = hf_folder(tmp_path / "hf")
    (source / "secret.json").symlink_to("/etc/hostname")
    refused(source, "names a file outside of the folder: 'secret.json'")


def write_raw(folder: Path, header: Any, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "truncated: expected .* bytes for w, found"),
        ({"w": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}, "tensor w: expected a dtype of .* F8_E8M0"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, "tensor w: expected 16 bytes"),
        ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}}, "tensor w: expected dtype, shape and data_of"),
        ({"w": {"dtype": "F32", "shape": "x", "data_offsets": None}}, "tensor w: expected dtype, shape and data_of"),
        ({"w": 3}, "tensor w: expected dtype, shape and data_offsets, found 3"),
        ({"__metadata__": {"DCP_SHARDING_INFO": "["}}, "DCP_SHARDING_INFO: expected a JSON object"),
        (b"\xff\xff", "expected a JSON object"),
        (b"3", "expected a JSON object, found int"),
    ],
)
def test_a_header_is_not_trusted(tmp_path: Path, header: Any, match: str) -> None:
    source = hf_folder(tmp_path / "hf")
    write_raw(source, header, bytes(8))
    refused(source, match)


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    source = hf_folder(tmp_path / "hf")
    file = source / "model.safetensors"
    whole = file.read_bytes()
    for size in (len(whole) - 1, 20, 8, 3):
        file.write_bytes(whole[:size])
        refused(source, "model.safetensors.* is truncated")
    file.write_bytes(b"\xff" * 100)
    refused(source, "expected a safetensors header, found one of")


def test_folders_of_other_formats_are_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "other"
    source.mkdir()
    refused(source, "the folder is empty")
    refused(tmp_path / "nowhere", f"there is no such folder in {tmp_path}")
    (source / "readme.md").write_text("x")
    refused(source, "found readme.md")
    (source / "pytorch_model.bin").write_bytes(b"x")
    refused(source, "pytorch_model.bin, a pickle, which may run any code and is never read")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a file") as caught:
        import_checkpoint(str(source / "pytorch_model.bin"), str(tmp_path / "own"))
    assert "safetensors.torch.save_file" in caught.value.hint


def test_memory_stays_small(tmp_path: Path) -> None:
    size = 320 << 20
    folder = tmp_path / "hf"
    folder.mkdir()
    write_raw(folder, {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}, b"")
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + size)
    tracemalloc.start()
    try:
        import_checkpoint(str(folder), str(tmp_path / "own"))
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()
