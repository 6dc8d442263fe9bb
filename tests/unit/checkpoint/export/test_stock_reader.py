"""A stock reader of safetensors opens every data file that we write, and finds every element once, with its bits.

Without it only we could read what we save.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from trainctl.checkpoint.importing import import_checkpoint
from trainctl.checkpoint.layout.key import DTYPE_BYTES, StateKey
from trainctl.checkpoint.live.tensors import dtype_of
from trainctl.checkpoint.memory.node_memory import NodeMemory
from unit.checkpoint.layouts import shapes
from unit.checkpoint.ranks import flats, full_values, key, plain, rows, same_bits, save

Values = Mapping[StateKey, torch.Tensor]
CUTS = {"plain": plain, "rows": rows, "columns": lambda v, n: rows(v, n, dim=1), "flats": flats}
NAMES = ["w", "a.b.0.weight", "ünï", "with space", 'q"uote', "a@@b", "a@@flat:3", "x/y\\z"]


def stock(folder: Path) -> list[tuple[str, torch.Tensor]]:
    """Every entry of every data file below a folder, by nothing of ours."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["format"] == "pt"
            found += [(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118  (no dict)
    return found


def assert_holds(folder: Path, values: Values) -> None:
    """The entries are the values, each element once."""
    names = {}
    for state_key, value in values.items():
        own = state_key.fqn if state_key.kind == "param" else f"optim.{state_key.kind}.{state_key.fqn}"
        names[own.replace("@@", "@@@@")] = names[state_key.fqn] = value
    left = {id(value): torch.ones(value.numel(), dtype=torch.bool) for value in values.values()}
    empty = {id(value) for value in values.values() if not value.numel()}
    for name, tensor in stock(folder):
        value, numbers = where(name, tensor, names)
        assert same_bits(tensor.reshape(-1), value.reshape(-1)[numbers]), name
        assert left[id(value)][numbers].all(), f"{name} is there twice"
        left[id(value)][numbers] = False
        empty.discard(id(value))
    assert not any(missing.any() for missing in left.values())
    assert not empty


def where(name: str, tensor: torch.Tensor, names: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The value that an entry is of, and the numbers of its elements, as its name and its shape say."""
    if name in names:
        assert tensor.shape == names[name].shape
        return names[name], torch.arange(tensor.numel())
    whole, box, ends = name.rpartition("@@box:")
    if box and whole in names:
        numbers = torch.arange(names[whole].numel()).reshape(names[whole].shape)
        numbers = numbers[tuple(slice(*map(int, part.split(":"))) for part in ends.split(","))]
        assert tensor.shape == numbers.shape
        return names[whole], numbers.reshape(-1)
    whole, flat, start = name.rpartition("@@flat:")
    assert flat, name
    return names[whole], torch.arange(int(start), int(start) + tensor.numel())


@st.composite
def states(draw: st.DrawFn) -> dict[StateKey, torch.Tensor]:
    values: dict[StateKey, torch.Tensor] = {}
    for seed, name in enumerate(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))):
        dtype, kind = draw(st.sampled_from(sorted(DTYPE_BYTES))), draw(st.sampled_from(["param", "exp_avg"]))
        (value,) = full_values({name: draw(shapes)}, seed=seed, dtype=dtype).values()
        values[key(name, dtype, kind)] = value
    return values


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=states(),
    cut=st.sampled_from(sorted(CUTS)),
    ranks=st.integers(1, 3),
    max_file_bytes=st.sampled_from([1, 7, 50, 400, 1 << 20]),
    files=st.sampled_from(["chunked", "hf"]),
)
def test_whatever_is_saved_is_read_by_others(
    values: dict[StateKey, torch.Tensor], cut: str, ranks: int, max_file_bytes: int, files: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(folder, values, layout=CUTS[cut](values, ranks), max_file_bytes=max_file_bytes, files=files)
        assert_holds(Path(folder), values)


@pytest.mark.parametrize("files", ["chunked", "hf"])
@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_every_dtype_over_files_that_are_full(tmp_path: Path, dtype: str, files: str) -> None:
    values = full_values({"w": (9, 5), "b": (3,), "scalar": (), "none": (0, 4)}, dtype=dtype)
    save(tmp_path, values, layout=rows(values, 3), max_file_bytes=16, files=files)
    assert len(list(tmp_path.rglob("*.safetensors"))) >= 2
    assert_holds(tmp_path, values)


@pytest.mark.parametrize("files", ["chunked", "hf"])
def test_a_file_of_all_dtypes_has_each_where_it_can_be_mapped(tmp_path: Path, files: str) -> None:
    """At a multiple of its item, for readers that do not copy; odd numbers of narrow ones would shift the wide."""
    values: dict[StateKey, torch.Tensor] = {}
    for number, dtype in enumerate(sorted(DTYPE_BYTES)):
        values |= full_values({f"{number}.odd": (3,)}, seed=number, dtype=dtype)
    save(tmp_path, values, layout=plain(values, 1), files=files)
    assert_holds(tmp_path, values)
    (path,) = tmp_path.rglob("*.safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    begins = {entry["dtype"]: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name[0] != "_"}
    assert begins.keys() == DTYPE_BYTES.keys()
    assert all(begin % DTYPE_BYTES[dtype] == 0 for dtype, begin in begins.items())


@pytest.mark.parametrize("max_file_bytes", [5 << 30, 64])
def test_columns_are_blocks(tmp_path: Path, max_file_bytes: int) -> None:
    values = full_values({"w": (9, 6), "deep": (4, 6, 5)}, dtype="BF16")
    save(tmp_path, values, layout=CUTS["columns"](values, 3), max_file_bytes=max_file_bytes)
    assert any("@@box:" in name for name, _ in stock(tmp_path))
    assert_holds(tmp_path, values)


def test_snapshots_in_a_nodes_memory(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path, "job-a")
    memory.make()
    values = full_values({"w": (9, 5), "half": (7,)}, dtype="BF16")
    save(memory.uri, values, layout=flats(values, 2))
    assert len(memory.held()) == 1
    assert_holds(tmp_path, values)


def test_what_was_imported(tmp_path: Path) -> None:
    tensors = {
        f"model.{dtype.lower()}": value
        for number, dtype in enumerate(sorted(DTYPE_BYTES))
        for value in full_values({"x": (5, 3)}, seed=number, dtype=dtype).values()
    }
    (tmp_path / "hf").mkdir()
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    import_checkpoint(str(tmp_path / "hf"), str(tmp_path / "own"), max_file_bytes=40)
    values = {key(name, name.rpartition(".")[2].upper()): value for name, value in tensors.items()}
    assert len(list((tmp_path / "own").rglob("*.safetensors"))) > 3
    assert_holds(tmp_path / "own", values)
    assert all(value.dtype == dtype_of(state_key.dtype) for state_key, value in values.items())
