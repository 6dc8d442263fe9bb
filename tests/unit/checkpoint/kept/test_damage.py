"""Without it a flipped bit or a swapped file would be loaded as weights, or be found without saying where it is."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainctl.checkpoint.engine import load, resolve
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.manifest.values import decode_value, encode_value
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.damaging import flip
from unit.checkpoint.ranks import attempt, full_values, key, plain, rank_state, same_bits, save


def folder_of(ref: CheckpointRef) -> Path:
    return Path(ref.uri)


def assert_refused(ref: CheckpointRef, *words: str) -> None:
    """Loading fails with all the words, and the live state is as it was."""
    values = full_values()
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    with pytest.raises(CheckpointError) as caught:
        load(ref, state)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    assert all(not t.tensor.view(torch.uint8).any() for t in state.tensors if t.tensor.dim())


@pytest.mark.parametrize("position", [-1, 4096])
def test_a_flipped_bit_in_a_body_names_file_range_and_tensor(tmp_path: Path, position: int) -> None:
    ref = save(tmp_path)
    flip(folder_of(ref) / "data/w00000-000.safetensors", position)
    assert_refused(ref, "data/w00000-000.safetensors is corrupt: bytes ", "param of ")


def test_a_flipped_bit_in_a_data_header_is_found(tmp_path: Path) -> None:
    ref = save(tmp_path)
    flip(folder_of(ref) / "data/w00000-000.safetensors", 100)
    assert_refused(
        ref,
        "data/w00000-000.safetensors is corrupt: bytes 0:4096 (its header)",
        "; tensors in it: param of b, param of none, param of one and 1 more",
    )


def test_a_truncated_file_names_both_sizes_and_what_it_lost(tmp_path: Path) -> None:
    ref = save(tmp_path)
    path = folder_of(ref) / "data/w00000-000.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    lost = "; tensors in it: param of scalar"
    wanted = f"data/w00000-000.safetensors is truncated: expected {size} bytes, found {size - 3}{lost}"
    assert_refused(ref, wanted)
    (found,) = verify(ref).damage
    assert found.endswith(wanted), "what is before the cut is not lost, and not named"


@pytest.mark.parametrize("name", ["data/w00000-000.safetensors", "parts/w00001.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    ref = save(tmp_path)
    (folder_of(ref) / name).unlink()
    assert_refused(ref, f"{name} is missing; tensors in it: param of ")


def test_swapped_data_files_of_equal_size_are_found(tmp_path: Path) -> None:
    values = {key("a"): torch.ones(64), key("b"): torch.zeros(64)}
    ref = save(tmp_path, values)
    first, second = sorted((folder_of(ref) / "data").iterdir())
    assert first.stat().st_size == second.stat().st_size
    third = first.with_name("x")
    first.rename(third)
    second.rename(first)
    third.rename(second)
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    with pytest.raises(CheckpointError, match=r"w0000\d-000.safetensors is corrupt"):
        load(ref, state)
    assert not state.tensors[0].tensor.any()


def test_a_part_of_another_save_is_found(tmp_path: Path) -> None:
    one = save(tmp_path, full_values(seed=1), of=attempt(1, nonce="one"))
    two = save(tmp_path, full_values(seed=2), of=attempt(1, nonce="two"))
    for path in folder_of(one).glob("*/w00001*"):
        shutil.copy(path, folder_of(two) / path.relative_to(folder_of(one)))
    assert_refused(two, "parts/w00001.json is corrupt: expected sha256", "; tensors in it: param of ")


def test_data_of_another_save_is_found(tmp_path: Path) -> None:
    one = save(tmp_path, full_values(seed=1), of=attempt(1, nonce="one"))
    two = save(tmp_path, full_values(seed=2), of=attempt(1, nonce="two"))
    name = "data/w00000-000.safetensors"
    shutil.copy(folder_of(one) / name, folder_of(two) / name)
    assert_refused(two, f"{name} is corrupt")


def test_a_changed_root_manifest_is_found(tmp_path: Path) -> None:
    ref = save(tmp_path)
    path = folder_of(ref) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":9'))
    assert_refused(ref, "expected the manifest with sha256", ref.manifest_sha256)
    assert_refused(CheckpointRef(uri=ref.uri, step=1, lineage=1, attempt="", manifest_sha256=""), "selfSha256")


def _rewrite(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        fields = json.loads(path.read_bytes())
        change(fields)
        path.write_text(json.dumps(fields))

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "manifest.json is torn"),
        (lambda p: p.write_bytes(b""), "manifest.json is torn: expected a JSON object, found 0 bytes"),
        (lambda p: p.write_bytes(b"\x80\x04\x95."), "manifest.json is torn"),
        (lambda p: p.write_text('{"format": "other"}'), "manifest.json is foreign"),
        (_rewrite(lambda f: f.update(tcf=3)), "expected version 1 or 2 of the checkpoint format, found 3"),
        (lambda p: p.unlink(), "manifest.json is missing: expected a complete checkpoint, found data, parts"),
    ],
)
def test_each_kind_of_bad_root_manifest_is_told_apart(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    ref = save(tmp_path)
    damage(folder_of(ref) / "manifest.json")
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve(ref.uri)
    assert caught.value.hint


def test_a_newer_writer_may_add_fields(tmp_path: Path) -> None:
    ref = save(tmp_path)
    path = folder_of(ref) / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields |= {"invented": {"later": 1}, "selfSha256": ""}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    fields["selfSha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(fields))
    values = full_values()
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    load(resolve(ref.uri), state)
    assert all(same_bits(t.tensor, values[t.key]) for t in state.tensors)


def test_damage_between_the_two_readings_calls_the_state_poisoned(tmp_path: Path) -> None:
    ref = save(tmp_path)
    flip(folder_of(ref) / "data/w00000-000.safetensors", -1)
    values = full_values()
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    with pytest.raises(CheckpointError, match="this process is poisoned: some of its tensors hold values of step 1"):
        load(ref, state, verify_first=False)


def test_a_header_that_is_damaged_leaves_the_state_alone_and_says_so(tmp_path: Path) -> None:
    ref = save(tmp_path)
    flip(folder_of(ref) / "data/w00000-000.safetensors", 20)
    values = full_values()
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    before = [t.tensor.clone() for t in state.tensors]
    with pytest.raises(CheckpointError, match=r"\(its header\).*; no tensor of this process was changed") as caught:
        load(ref, state, verify_first=False)
    assert "poisoned" not in str(caught.value)
    assert all(same_bits(t.tensor, old) for t, old in zip(state.tensors, before, strict=True))


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    save(tmp_path, artifacts={"config.json": b"{}"})
    for path in tmp_path.rglob("*"):
        if path.is_file():
            with pytest.raises(ValueError, match=r".*"):
                pickletools.dis(path.read_bytes(), out=io.StringIO())


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**53,
        2**53 + 1,
        -(2**64),
        0.1,
        -0.0,
        float("inf"),
        "text",
        [1, (2.5, "x")],
        {"betas": (0.9, 0.999), "nested": {"a": []}},
        {1: "one", (2, None): 0.5, "three": [3], 2**60: True},
        {"$float": 1, "$pairs": {}},
        Counter({3: 2, 5: 1}),
        Counter("aab"),
    ],
)
def test_values_come_back_exactly(value: object) -> None:
    text = json.dumps(encode_value(value), allow_nan=False)
    back = decode_value(json.loads(text))
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {frozenset(): 2}, torch.zeros(1), "\ud800"])
def test_what_json_cannot_hold_is_refused_by_path(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"objects.scheduler\[1\].*: expected"):
        encode_value({"scheduler": [0, value]})
