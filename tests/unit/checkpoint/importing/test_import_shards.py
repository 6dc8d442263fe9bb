"""Folders of torch DCP's own safetensors writer, as it leaves them: whole, consolidated, or in the ranks' parts.

Without it shards could be joined in the wrong order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_dcp
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp

from trainctl.checkpoint.importing import Naming, import_checkpoint
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.library import load
from trainctl.core.errors import CheckpointError
from unit.checkpoint.hf_tensors import TENSORS, module

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def written(folder: Path, tensors: Mapping[str, torch.Tensor] = TENSORS, **options: Any) -> Path:
    """By torch, in one process."""
    folder.mkdir()
    save_dcp(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), **options), no_dist=True)
    return folder


def shard(folder: Path, rank: int, parts: Mapping[str, tuple[torch.Tensor, Any]], *, of: str = "00001") -> Path:
    """What the writer of one rank leaves: its part of each tensor, and where that begins."""
    folder.mkdir(exist_ok=True)
    offsets = {name: {"saved_offsets": begin} for name, (_, begin) in parts.items()}
    path = folder / f"shard-{rank:05d}-model-{of}-of-00002.safetensors"
    metadata = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
    save_file({name: tensor.contiguous() for name, (tensor, _) in parts.items()}, path, metadata=metadata)
    return path


def two_ranks(folder: Path) -> Path:
    """Rows on two ranks, unevenly; one tensor cut along the other dim, one on a rank alone, which has two files."""
    a, b, head = (TENSORS[name] for name in ("model.a", "model.b", "head"))
    shard(folder, 1, {"model.a": (a[:3], [0, 0]), "head": (head[:, :1], [0, 0])})
    shard(folder, 2, {"model.a": (a[3:], [3, 0]), "head": (head[:, 1:], [0, 1])})
    shard(folder, 2, {"model.b": (b, [0])}, of="00002")
    return folder


def assert_came_in(source: Path, target: Path, *, format_: str) -> tuple[str, ...]:
    report = import_checkpoint(str(source), str(target), max_file_bytes=40)
    assert (report.format, report.tensors, report.data_bytes) == (format_, 3, 48 + 10 + 48)
    into = module()
    load(str(target), model=into)
    assert all(torch.equal(into.state_dict()[name], value) for name, value in TENSORS.items())
    return report.notes


def test_what_one_process_wrote_whole_is_a_hugging_face_folder(tmp_path: Path) -> None:
    source = written(tmp_path / "dcp", fqn_to_index_mapping={"model.a": 1, "model.b": 2, "head": 2})
    assert not assert_came_in(source, tmp_path / "own", format_="Hugging Face safetensors")


def test_what_was_consolidated_is_a_hugging_face_folder(tmp_path: Path) -> None:
    weights = {name: value for name, value in TENSORS.items() if value.is_floating_point()}
    source = written(tmp_path / "dcp", weights, save_distributed=True, enable_consolidation=True)
    for folder, format_ in ((source, "Hugging Face safetensors"), (source / "sharded", "torch DCP, safetensors")):
        report = import_checkpoint(str(folder), str(tmp_path / f"own-{folder.name}"))
        assert (report.format, report.tensors, report.data_bytes) == (format_, 2, 48 + 10)


def test_the_parts_of_the_ranks_are_put_together(tmp_path: Path) -> None:
    source = two_ranks(tmp_path / "dcp")
    (note,) = assert_came_in(source, tmp_path / "own", format_="torch DCP, safetensors")
    assert "files of 2 ranks and does not say how many there were" in note
    as_torch = {name: torch.zeros_like(value) for name, value in TENSORS.items()}
    load_dcp(as_torch, storage_reader=HuggingFaceStorageReader(str(source)), no_dist=True)
    assert all(torch.equal(as_torch[name], value) for name, value in TENSORS.items())


def test_what_torch_wrote_in_parts_comes_in(tmp_path: Path) -> None:
    source = written(tmp_path / "dcp", save_distributed=True)
    assert_came_in(source, tmp_path / "own", format_="torch DCP, safetensors")
    report = import_checkpoint(str(source), str(tmp_path / "less"), naming=Naming(exclude=("he*",)))
    assert report.tensors == 2


def refused(source: Path, match: str) -> None:
    target = source.parent / "own"
    with pytest.raises(CheckpointError, match=match) as caught:
        import_checkpoint(str(source), str(target))
    assert caught.value.hint
    assert survey(str(target)).checkpoints == ()


def test_a_part_that_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    source = two_ranks(tmp_path / "dcp")
    (source / "shard-00001-model-00001-of-00002.safetensors").unlink()
    refused(source, r"nothing holds .* of head \(shape \[2, 3\]\)")
    source = two_ranks(tmp_path / "dcp")
    shard(source, 3, {"model.a": (TENSORS["model.a"][2:], [2, 0])})
    with pytest.raises(CheckpointError, match=r"of model.a once, found it twice"):
        import_checkpoint(str(source), str(tmp_path / "own"))


def test_parts_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    source = two_ranks(tmp_path / "dcp")
    last = shard(source, 3, {"model.a": (torch.zeros(1, 3).bfloat16(), [4, 0])})
    refused(source, "tensor model.a: expected parts of one tensor, found F32 of 2 dims in .*00001.*BF16 of 2 dims in")
    last.unlink()
    shard(source, 3, {"model.a": (torch.zeros(3), [4])})
    refused(source, "tensor model.a: expected parts of one tensor")


@pytest.mark.parametrize("begin", [[0], [0, -1], [0, "0"], "00", None, [0, 0, 0], [0, 1.5]])
def test_places_that_make_no_sense_are_refused(tmp_path: Path, begin: Any) -> None:
    source = tmp_path / "dcp"
    shard(source, 1, {"w": (torch.zeros(2, 2), begin)})
    refused(source, "tensor w: expected saved_offsets of 2 dims in DCP_SHARDING_INFO")


def test_a_file_without_places_or_cut_off_is_named(tmp_path: Path) -> None:
    source = two_ranks(tmp_path / "dcp")
    file = source / "shard-00002-model-00001-of-00002.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(source, "shard-00002-model-00001-of-00002.safetensors is truncated")
    save_file({"w": torch.zeros(2)}, file)
    refused(source, "shard-00002.*: expected where its parts of tensors begin .* found nothing of that")


def test_a_part_that_an_index_calls_whole_is_refused(tmp_path: Path) -> None:
    source = two_ranks(tmp_path / "dcp")
    file = "shard-00002-model-00001-of-00002.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.a": file}}))
    refused(source, r"holds parts of tensors, not whole ones: model.a begins at \[3, 0\]")


def test_the_folder_of_the_parts_is_named(tmp_path: Path) -> None:
    two_ranks(tmp_path / "sharded")
    with pytest.raises(CheckpointError, match="was not consolidated: sharded") as caught:
        import_checkpoint(str(tmp_path), str(tmp_path / "own"))
    assert caught.value.hint == f"name that one: {tmp_path}/sharded"


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    source = tmp_path / "dcp"
    outside = shard(tmp_path / "other", 1, {"w": (torch.zeros(2), [0])})
    source.mkdir()
    (source / outside.name).symlink_to(outside)
    refused(source, "names a file outside of the folder")
