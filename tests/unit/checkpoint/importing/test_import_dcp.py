"""Folders of torch DCP become checkpoints with the same bits, and what is wrong with one is said with its place.

Without it runs begun elsewhere could come in with wrong weights.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp

from trainctl.checkpoint.importing import ImportReport, Naming, import_checkpoint
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.library import load
from trainctl.core.errors import CheckpointError, ConflictError, UsageError
from unit.checkpoint.evil_pickle import Runs

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def built(seed: int, *, steps: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def dcp_folder(folder: Path, state: Mapping[str, Any]) -> Path:
    save_dcp(dict(state), checkpoint_id=str(folder), no_dist=True)
    return folder


def nested(folder: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    """As the tutorials of torch save it."""
    model, optimizer = built(1, steps=3)
    weights, moments = get_state_dict(model, optimizer)
    return dcp_folder(folder, {"model": weights, "optim": moments, "epoch": 4}), model, optimizer


def flat(folder: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    """As torchtitan saves it: parameters at the top, the optimizer's state with flat names, tensors of its own."""
    model, optimizer = built(1, steps=3)
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    moments = get_optimizer_state_dict(model, optimizer, options=options)
    state = {**model.state_dict(), "optimizer": moments, "train_state": {"step": torch.tensor(3)}}
    return dcp_folder(folder, state), model, optimizer


def imported(source: Path, target: Path, **options: Any) -> ImportReport:
    return import_checkpoint(str(source), str(target), naming=Naming(**options), step=3, cursor=12)


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", [nested, flat])
def test_parameters_and_moments_go_on_as_they_were(
    tmp_path: Path, make: Callable[[Path], tuple[Path, nn.Module, torch.optim.Optimizer]]
) -> None:
    source, model, optimizer = make(tmp_path / "dcp")
    report = imported(source, tmp_path / "own")
    assert (report.format, report.optimizer, report.ref.step) == ("torch DCP", True, 3)
    assert not verify(report.ref).damage
    other, moments = built(2)
    load(str(tmp_path / "own"), model=other, optimizers=[moments])
    assert equal_states(model, other)
    for one, two in zip(optimizer.state.values(), moments.state.values(), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[kind], two[kind]) for kind in one)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    source, _, _ = nested(tmp_path / "dcp")
    notes = imported(source, tmp_path / "all").notes
    assert notes[0] == "parameters are those under model"
    assert "left out: 1 pickled value at the top (never read)" in notes
    source, _, _ = flat(tmp_path / "titan")
    report = imported(source, tmp_path / "weights", parameters_only=True)
    assert not report.optimizer
    assert "left out: the optimizer's state, 18 tensors" in report.notes
    assert "left out: 1 tensor under train_state" in report.notes
    other, _ = built(2)
    load(str(tmp_path / "weights"), model=other)


def test_every_dtype_and_odd_shape_keeps_its_bits(tmp_path: Path) -> None:
    dtypes = (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64, torch.int8)
    floats = (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16, torch.float32, torch.float64)
    state: dict[str, torch.Tensor] = {
        str(dtype).replace("torch.", "of_"): torch.arange(8, dtype=torch.uint8).view(dtype)
        for dtype in (*dtypes, *floats, torch.complex64)
    }
    base = torch.randn(6, 4)
    state |= {"of_bool": torch.tensor([True, False]), "none": torch.zeros(0, 4), "scalar": torch.tensor(1.5)}
    state |= {"rows": base[2:4], "leaf": nn.Parameter(torch.randn(3))}
    module = nn.Module()
    for name, value in state.items():
        module.register_buffer(name, torch.zeros_like(value))
    imported(dcp_folder(tmp_path / "dcp", state), tmp_path / "own")
    load(str(tmp_path / "own"), model=module)
    for name, value in state.items():
        found = module.get_buffer(name)
        assert found.dtype == value.dtype
        assert bytes(found.reshape(-1).view(torch.uint8).numpy()) == bytes(
            value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        ), name


def metadata(folder: Path) -> Metadata:
    found: Metadata = pickle.loads((folder / ".metadata").read_bytes())
    return found


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(dataclasses.replace(metadata(folder), **changes)))


def refused(source: Path, target: Path, match: str, kind: type[Exception] = CheckpointError, **options: Any) -> None:
    with pytest.raises(kind, match=match):
        imported(source, target, **options)
    assert survey(str(target)).checkpoints == ()
    assert not [path for path in target.rglob("*") if path.is_file()]


def test_a_metadata_that_runs_something_is_refused(tmp_path: Path) -> None:
    source, _, _ = nested(tmp_path / "dcp")
    mark = tmp_path / "was-here"
    rewrite(source, planner_data=Runs(f"touch {mark}"))
    refused(source, tmp_path / "own", r"dcp/\.metadata is refused: it names posix\.system")
    assert not mark.exists()
    metadata(source)
    assert mark.exists()  # it would have been run


def test_a_payload_that_runs_something_is_refused(tmp_path: Path) -> None:
    source = dcp_folder(tmp_path / "dcp", {"w": torch.randn(4)})
    mark = tmp_path / "was-here"
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs(f"touch {mark}"), 2))
        archive.writestr("archive/data/0", bytes(16))
    data = payload.getvalue()
    (source / "__0_0.distcp").write_bytes(data)
    (index, info), *_ = metadata(source).storage_data.items()
    rewrite(source, storage_data={index: dataclasses.replace(info, offset=0, length=len(data))})
    refused(source, tmp_path / "own", rf"__0_0.distcp, bytes 0:{len(data)} \(w\) is refused: it names posix.system")
    assert not mark.exists()


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    source, _, _ = nested(tmp_path / "dcp")
    file = source / "__0_0.distcp"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(source, tmp_path / "own", rf"__0_0.distcp is truncated: expected at least {len(whole)} bytes, found")
    file.write_bytes(bytes(len(whole)))
    refused(source, tmp_path / "own", r"__0_0.distcp, bytes \d+:\d+ \(.*\): expected what torch.save writes")
    file.unlink()
    refused(source, tmp_path / "own", "names __0_0.distcp, which is not there")
    (source / ".metadata").write_bytes(b"")
    refused(source, tmp_path / "own", r"\.metadata is no intact pickle")
    (source / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    refused(source, tmp_path / "own", r"\.metadata: expected the metadata of a torch DCP folder")


@pytest.mark.parametrize(
    "path", ["../outside.distcp", "/etc/hostname", "link.distcp", "a/../../outside.distcp", "a\0b"]
)
def test_files_outside_of_the_folder_are_not_read(tmp_path: Path, path: str) -> None:
    source = dcp_folder(tmp_path / "dcp", {"w": torch.randn(4)})
    shutil.copy(source / "__0_0.distcp", tmp_path / "outside.distcp")
    os.symlink(tmp_path / "outside.distcp", source / "link.distcp")
    (index, info), *_ = metadata(source).storage_data.items()
    rewrite(source, storage_data={index: dataclasses.replace(info, relative_path=path)})
    refused(source, tmp_path / "own", re.escape(f"names a file outside of the folder: {path!a}"))


def test_missing_pieces_and_unknown_dtypes_are_named(tmp_path: Path) -> None:
    source = dcp_folder(tmp_path / "dcp", {"w": torch.randn(4, 3), "odd": torch.zeros(2, dtype=torch.complex128)})
    refused(source, tmp_path / "own", r"\.metadata, tensor odd: expected a dtype of .*, found complex128")
    source = dcp_folder(tmp_path / "two", {"w": torch.randn(4, 3)})
    found: Any = metadata(source).state_dict_metadata["w"]
    rewrite(source, state_dict_metadata={"w": dataclasses.replace(found, size=torch.Size((6, 3)))})
    refused(source, tmp_path / "own", r"nothing holds elements 12:18 of w \(shape \[6, 3\]\)")
    rewrite(source, storage_data={})
    refused(source, tmp_path / "own", r"tensor w: the metadata does not say where \[0:4, 0:3\] lies")
    source = dcp_folder(tmp_path / "strides", {"w": torch.randn(4, 3).t()})
    refused(source, tmp_path / "own", r"\(w\): expected elements in row-major order, found strides \[1, 3\]")


def test_a_target_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    source, _, _ = nested(tmp_path / "dcp")
    first = imported(source, tmp_path / "own")
    with pytest.raises(ConflictError, match="expected an empty folder, found step-000000000003"):
        imported(source, tmp_path / "own")
    assert [info.ref for info in survey(str(tmp_path / "own")).checkpoints] == [first.ref]
    with pytest.raises(CheckpointError, match="is a checkpoint of trainctl already"):
        imported(tmp_path / "own", tmp_path / "again")


def test_an_optimizer_that_is_not_understood_asks_for_a_decision(tmp_path: Path) -> None:
    state = {"model": {"w": torch.randn(2)}, "optim": {"state": {"v": {"exp_avg": torch.randn(2)}}, "x": 1}}
    source = dcp_folder(tmp_path / "dcp", state)
    refused(
        source, tmp_path / "own", r"expected state of parameters that are there, found 1 others:\noptim", UsageError
    )
    assert not imported(source, tmp_path / "weights", parameters_only=True).optimizer
    state["optim"]["state"] = {"w": {"exp_avg": torch.randn(2), "step": 7}}  # type: ignore[index]
    source = dcp_folder(tmp_path / "number", state)
    refused(source, tmp_path / "own", "found a pickled value: optim.state.w.step", UsageError)
