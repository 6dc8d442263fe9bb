"""A checkpoint of 1,024 writers: saved, sealed, verified, described and loaded by another number of ranks.

Without it a large job could wait minutes for each save.

Its tensors are small. What would take long at this size is what is done once for each part: requests that wait for
each other, and plans.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
import torch

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.layout.region import Box, Shape
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import full_values, part_of, rank_state, rows, same_bits, save

PARTS = 1024
KINDS = ("param", "exp_avg", "exp_avg_sq")
SAVE_LIMIT_S = 15.0
LOAD_LIMIT_S = 1.5
"""Processor time of one rank, planning and all; measured: 0.1 s."""


@dataclass(frozen=True)
class Saved:
    ref: CheckpointRef
    values: Mapping[StateKey, torch.Tensor]
    root: RootManifest


@pytest.fixture(scope="module")
def saved() -> Iterator[Saved]:
    model = {
        f"layers.{n}.{name}": shape
        for n in range(2)
        for name, shape in {"up": (PARTS, 2), "down": (2 * PARTS, 1), "norm": (PARTS,)}.items()
    }
    values = {
        key._replace(kind=kind): value
        for seed, kind in enumerate(KINDS)
        for key, value in full_values(model, seed=seed).items()
    }
    uri = f"memory://{uuid.uuid4()}"
    began_s = time.process_time()
    ref = save(uri, values, layout=rows(values, PARTS), artifacts={"config.json": b"{}"})
    assert time.process_time() - began_s < SAVE_LIMIT_S
    yield Saved(ref, values, read_root(open_storage(ref.uri))[0])
    open_storage(uri).delete("")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the storage was asked for what: ``reading``, ``listing``, ``looking``."""
    found: Counter[str] = Counter()
    real = Calls.once

    def noting(calls: Calls, where: str, *rest: object, **named: object) -> object:
        found[where.split()[0]] += 1
        return real(calls, where, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Calls, "once", noting)
    return found


def test_all_parts_are_listed_and_the_table_is_small(saved: Saved) -> None:
    assert [part.writer for part in saved.root.parts] == list(range(PARTS))
    assert len(saved.root.stored_files) == 2 * PARTS + 2, "data and manifest of each, the table and the artifact"
    assert saved.root.contents is not None
    assert saved.root.contents.size_bytes < 64 << 10
    assert saved.root.tensors == len(saved.values)


def test_every_byte_is_verified_with_a_few_requests_a_part(saved: Saved, asked: Counter[str]) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(saved.ref, progress=lambda done, total: seen.append((done, total)))
    assert found.damage == ()
    assert found.files == 2 * PARTS + 3
    assert seen[-1] == (found.size_bytes, found.size_bytes)
    assert seen == sorted(seen)
    assert asked["reading"] <= 2 * PARTS + 3, "a part is its manifest, and its blocks in one request"
    assert asked["looking"] == 0, "sizes come with the listings"
    assert asked["listing"] == 3


@pytest.mark.parametrize(("ranks", "rank"), [(768, 5), (96, 95), (1500, 700), (PARTS, 1023)])
def test_a_rank_asks_for_what_it_needs_and_plans_at_once(
    saved: Saved, asked: Counter[str], ranks: int, rank: int
) -> None:
    state = rank_state(saved.values, rows(saved.values, ranks), rank_holder(rank), blank=True)
    watch = LoadWatch()
    began_s = time.process_time()
    load(saved.ref, state, everything=saved.values, verify_first=False, watch=watch)
    assert time.process_time() - began_s < LOAD_LIMIT_S
    assert all(same_bits(t.tensor, part_of(saved.values[t.key], t.region)) for t in state.tensors)
    assert 0 < watch.part(rank).seconds["plan"] < 2 * LOAD_LIMIT_S
    parts = {row * PARTS // shape[0] for row, shape in wanted_rows(state)}
    assert asked["reading"] == 2 + 3 * len(parts), "root, table; of each part its manifest, its header and its blocks"
    assert (asked["listing"], asked["looking"]) == (3, 0)


def wanted_rows(state: LocalState) -> Iterator[tuple[int, Shape]]:
    """Every row that a rank wants, with the shape of its tensor."""
    for tensor in state.tensors:
        assert isinstance(tensor.region, Box)
        (begin, *_), (count, *_) = tensor.region.offsets, tensor.region.lengths
        yield from ((row, tensor.shape) for row in range(begin, begin + count))


def test_eight_ranks_load_what_a_thousand_saved(saved: Saved) -> None:
    layout = rows(saved.values, 8)
    began_s = time.process_time()
    for holder in layout.holders:
        state = rank_state(saved.values, layout, holder, blank=True)
        load(saved.ref, state, everything=saved.values, verify_first=False)
        assert all(same_bits(t.tensor, part_of(saved.values[t.key], t.region)) for t in state.tensors)
    assert time.process_time() - began_s < 8 * LOAD_LIMIT_S
