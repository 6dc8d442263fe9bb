"""What cannot be saved or read is one error that names the place: a dtype nobody knows, a folder without rights.

Without it people would get a traceback from the depths of a library.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.library import Checkpointer, load_state, save, save_state
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.manifest.codec import dump_contents, dump_part, sha256
from trainctl.checkpoint.manifest.names import CONTENTS
from trainctl.checkpoint.manifest.reading import read_contents, read_part, read_root
from trainctl.checkpoint.manifest.records import ContentsManifest, RootManifest, StoredFile
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.codec import from_wire
from trainctl.core.errors import CheckpointError, PlanError, StorageRefusedError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import full_values, key, plain, rank_state
from unit.checkpoint.ranks import save as save_values
from unit.checkpoint.resealing import resealed, without_table
from waiting import PATIENCE_S

NOBODY = 65534


def blank() -> LocalState:
    values = full_values()
    return rank_state(values, plain(values, 1), "rank:0", blank=True)


def test_a_save_names_every_tensor_of_a_dtype_that_cannot_be_stored(tmp_path: Path) -> None:
    model = nn.Module()
    for name, dtype in (("fine", torch.float32), ("odd", torch.complex128), ("strange", torch.float8_e4m3fnuz)):
        model.register_buffer(name, torch.zeros(2, dtype=dtype))
    with pytest.raises(PlanError) as caught:
        save(str(tmp_path), model=model, step=1)
    _, *lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == ["buffer of odd", "buffer of strange"]
    assert lines[0].endswith("found torch.complex128")
    assert "keep this tensor in one of these dtypes" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("w", torch.zeros(4, dtype=torch.bfloat16), "param of w: expected F32, as its key says, found torch.bfloat16"),
        ("w", torch.zeros(5), r"param of w: expected 4 elements for elements 0:4 of \[4\], found \[5\]"),
    ],
)
def test_a_tensor_that_is_not_what_its_key_says_is_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor, says: str
) -> None:
    """It would be written under a header that is wrong."""
    (wanted,) = rank_state(*_one(name), "rank:0").tensors
    state = LocalState((StateTensor(wanted.key, wanted.shape, wanted.region, tensor),))
    with pytest.raises(PlanError, match=says):
        save_state(str(tmp_path), state, step=1)
    assert not list(tmp_path.iterdir())
    save_values(tmp_path, _one(name)[0])
    with pytest.raises(PlanError, match=says):
        load_state(str(tmp_path), state)


def _one(name: str) -> tuple[dict[StateKey, torch.Tensor], Layout]:
    values = {key(name): torch.ones(4)}
    return values, plain(values, 1)


def rewritten(ref: CheckpointRef, path: str, change: Callable[[bytes], bytes]) -> CheckpointRef:
    """As if the checkpoint had been written so, with every hash right."""
    storage = open_storage(ref.uri)
    data = change(storage.read(path))
    storage.write_file(path, [data])
    new = StoredFile(path=path, size_bytes=len(data), sha256=sha256(data))

    def listed(root: RootManifest) -> RootManifest:
        if path == CONTENTS:
            return dataclasses.replace(root, contents=new)
        parts = (dataclasses.replace(p, manifest=new) if p.manifest.path == path else p for p in root.parts)
        return dataclasses.replace(root, parts=tuple(parts))

    return resealed(ref, listed)


def test_a_part_with_a_dtype_of_the_future_is_one_error(tmp_path: Path) -> None:
    ref = without_table(save_values(tmp_path))
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)
    parts = {report.manifest.path: read_part(storage, root, report) for report in root.parts}
    path, part = next((path, part) for path, part in parts.items() if any(t.fqn == "w" for t in part.tensors))
    odd = tuple(dataclasses.replace(t, dtype="F128") if t.fqn == "w" else t for t in part.tensors)
    ref = rewritten(ref, path, lambda _: dump_part(dataclasses.replace(part, tensors=odd)))
    state = blank()
    for act in (lambda: load(ref, state), lambda: load_state(ref.uri, state)):
        with pytest.raises(CheckpointError) as caught:
            act()
        assert f"{ref.uri}/{path}, param of w: expected a dtype of BOOL, " in str(caught.value)
        assert str(caught.value).endswith("found 'F128'")
        assert "newer" in caught.value.hint
    assert not any(t.tensor.view(torch.uint8).any() for t in state.tensors if t.tensor.dim())
    assert any("F128" in problem for problem in _verified(ref))


def _verified(ref: CheckpointRef) -> Iterator[str]:
    try:
        yield str(verify(ref))
    except TrainctlError as error:
        yield str(error)


def test_a_table_with_a_dtype_of_the_future_is_one_error(tmp_path: Path) -> None:
    ref = save_values(tmp_path)
    assert read_contents(open_storage(ref.uri), read_root(open_storage(ref.uri))[0]) is not None

    def odd(data: bytes) -> bytes:
        contents = from_wire(ContentsManifest, json.loads(data))
        first, *rest = contents.tensors
        return dump_contents(dataclasses.replace(contents, tensors=(dataclasses.replace(first, dtype="F4"), *rest)))

    ref = rewritten(ref, CONTENTS, odd)
    with pytest.raises(CheckpointError, match=r"parts/contents.json, param of \w+: expected a dtype of .*, found 'F4'"):
        load(ref, blank())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users can reach, as the folders of tests cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        for path in [Path(folder), *Path(folder).rglob("*")]:
            os.chmod(path, 0o755)


def as_somebody_else(act: Callable[[], object]) -> tuple[str, str]:
    """Error and hint of what a user without rights of its own gets: in a child, since nobody gives root back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                act()
                said = "\0nothing was refused"
            except StorageRefusedError as error:
                said = f"{error}\0{error.hint}"
            except BaseException:
                said = f"\0{traceback.format_exc()}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], PATIENCE_S)
    said = os.read(reading, 1 << 16).decode() if ready else "\0no answer"
    os.close(reading)
    if not ready:
        os.kill(child, 9)
    os.waitpid(child, 0)
    refused, remedy = said.split("\0")
    assert refused, remedy
    return refused, remedy


def test_a_folder_that_cannot_be_written_is_named(open_folder: Path) -> None:
    state = blank()
    save_state(str(open_folder / "warm"), state, step=1)  # what is imported late is there in the child, too
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    error, hint = as_somebody_else(lambda: save_state(str(closed), state, step=1))
    assert f"Permission denied: '{closed}/" in error
    assert "saving " in error
    assert hint == f"give the user who runs the job permission there: the right to write into {closed}"
    assert not list(closed.iterdir())


@pytest.mark.parametrize("what", ["", "step-000000000001/*", "step-000000000001/*/manifest.json", "step-*/*/data/*"])
def test_what_cannot_be_read_is_named(open_folder: Path, what: str) -> None:
    state = blank()
    ref = save_values(open_folder)
    load_state(str(open_folder), state)
    closed = next(open_folder.glob(what)) if what else open_folder
    closed.chmod(0)
    for uri in (str(open_folder), ref.uri):
        error, hint = as_somebody_else(lambda uri=uri: load_state(uri, state))  # type: ignore[misc]
        assert "Permission denied: '" in error
        assert str(closed) in error
        assert error.count("[Errno 13]") == 1
        right = "enter" if closed.is_dir() else "read"
        assert f"give the user who runs the job permission there: the right to {right} {closed}" in hint
    error, _ = as_somebody_else(lambda: load(ref, state))
    assert str(closed) in error


def test_a_save_in_the_background_says_which_right_is_missing(open_folder: Path) -> None:
    warm = Checkpointer(open_folder / "warm")
    with warm:
        warm.async_save(model=nn.Linear(2, 2), step=1).result()
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)

    def background() -> None:
        with Checkpointer(closed) as checkpointer:
            try:
                checkpointer.async_save(model=nn.Linear(2, 2), step=1).result()
            except CheckpointError as error:
                raise StorageRefusedError(str(error), hint=error.hint) from error

    error, _ = as_somebody_else(background)
    assert f"the right to write into {closed}" in error
