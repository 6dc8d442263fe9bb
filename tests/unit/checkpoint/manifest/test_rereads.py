"""Bytes that are changed on their way: read again, counted, told; wrong twice is damage.

Without it a flaky network could cost a good checkpoint, or let bad bytes in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.export.__main__ import main as export
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library import load as library_load
from trainctl.checkpoint.library import save as library_save
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import RangeRead
from trainctl.core.errors import DamagedCheckpointError
from unit.checkpoint.ranks import full_values, part_of, plain, rank_state, rows, same_bits, save

Wire = Callable[[int], Counter[str]]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Changes the first byte of everything that is read, so many times each; tells how often it did, by path."""

    def bad(times: int) -> Counter[str]:
        changed: Counter[str] = Counter()
        seen: Counter[tuple[str, int]] = Counter()
        read, read_ranges = LocalStorage.read, LocalStorage.read_ranges

        def hits(path: str, offset: int) -> bool:
            seen[path, offset] += 1
            changed[path] += seen[path, offset] <= times
            return seen[path, offset] <= times

        def bad_read(storage: LocalStorage, path: str, **named: Any) -> bytes:
            data = read(storage, path)
            return bytes([data[0] ^ 1]) + data[1:] if hits(path, 0) else data

        def bad_ranges(storage: LocalStorage, path: str, ranges: Sequence[RangeRead]) -> None:
            read_ranges(storage, path, ranges)
            for one in ranges:
                if len(one.into) and hits(path, one.offset):
                    one.into[0] ^= 1

        monkeypatch.setattr(LocalStorage, "read", bad_read)
        monkeypatch.setattr(LocalStorage, "read_ranges", bad_ranges)
        return changed

    return bad


def test_a_load_counts_what_was_right_when_it_was_read_again(
    tmp_path: Path, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    values = full_values({"w": (8, 4), "b": (8,)})
    ref = save(tmp_path, values, layout=rows(values, 2))
    state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    changed = wire(1)
    watch = LoadWatch()
    with caplog.at_level(logging.WARNING, "trainctl.checkpoint"):
        load(ref, state, watch=watch)
    assert all(same_bits(t.tensor, part_of(values[t.key], t.region)) for t in state.tensors)
    assert changed["parts/w00000.json"] == changed["parts/contents.json"] == changed["manifest.json"] == 1
    assert watch.part(0).healed_reads == changed.total() == len(caplog.records)
    assert watch.part(0).healed_reads == 4 + 2 + 4, "manifests and table; headers; blocks, in both readings but once"
    assert any("w00001-000.safetensors, bytes" in line for line in caplog.messages)
    again = LoadWatch()
    load(ref, state, watch=again)
    assert again.part(0).healed_reads == 0


def test_a_look_at_every_byte_counts_them_and_finds_no_damage(tmp_path: Path, wire: Wire) -> None:
    ref = save(tmp_path, artifacts={"config.json": b"{}"})
    assert verify(ref).healed_reads == 0
    changed = wire(1)
    found = verify(ref)
    assert found.damage == ()
    assert found.healed_reads == changed.total() > 5


def test_the_library_and_the_export_tell_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Linear(4, 2)
    ref = library_save(str(tmp_path / "c"), model=model, step=1)
    assert library_load(ref.uri, model=model).healed_reads == 0
    assert export([ref.uri, str(tmp_path / "quiet")]) == 0
    assert "right when repeated" not in capsys.readouterr().out
    read, left = LocalStorage.read, ["parts/contents.json", "parts/w00000.json"]

    def once_wrong(storage: LocalStorage, path: str, **named: Any) -> bytes:
        data = read(storage, path)
        if path not in left:
            return data
        left.remove(path)
        return b"?" + data[1:]

    monkeypatch.setattr(LocalStorage, "read", once_wrong)
    into = nn.Linear(4, 2)
    found = library_load(ref.uri, model=into)
    assert torch.equal(into.weight, model.weight)
    assert (found.healed_reads, left) == (2, [])
    left.append("parts/w00000.json")
    assert export([ref.uri, str(tmp_path / "told")]) == 0
    assert "1 read came with wrong bytes and right when repeated" in capsys.readouterr().out


def test_what_is_wrong_twice_is_damage_and_not_healed(tmp_path: Path, wire: Wire) -> None:
    values = full_values({"w": (8, 4)})
    ref = save(tmp_path, values)
    state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    path = next((Path(ref.uri) / "data").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    watch = LoadWatch()
    with pytest.raises(DamagedCheckpointError, match="is corrupt"):
        load(ref, state, watch=watch)
    assert watch.part(0).healed_reads == 0
    assert verify(ref).healed_reads == 0
    wire(2)
    with pytest.raises(DamagedCheckpointError, match="expected the manifest with sha256"):
        verify(ref)
