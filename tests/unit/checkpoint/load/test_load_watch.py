"""What a load tells of itself: how far it is, and what took how long.

Without it a slow load would look like a hang.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.monitor import DIGEST, FETCH, LOAD_STAGES
from trainctl.core.errors import CheckpointError
from unit.checkpoint.ranks import flats, full_values, plain, rank_state, rows, save


@pytest.mark.parametrize("verify_first", [False, True])
def test_bytes_and_stages_of_a_rank(tmp_path: Path, verify_first: bool) -> None:
    values = full_values()
    ref = save(tmp_path, values, layout=flats(values, 3))
    wanted_bytes = sum(tensor.numel() * tensor.element_size() for tensor in values.values())
    seen: list[tuple[int, int]] = []
    watch = LoadWatch(lambda done, total: seen.append((done, total)))
    layout = plain(values, 1)
    state = rank_state(values, layout, next(iter(layout.holders)), blank=True)
    load(ref, state, everything=values, verify_first=verify_first, watch=watch)
    part = watch.part(5)
    times = 2 if verify_first else 1
    assert (part.rank, part.data_bytes, part.moved_bytes) == (5, wanted_bytes, times * wanted_bytes)
    assert set(part.seconds) == set(LOAD_STAGES) - {FETCH, DIGEST}, "nothing was fetched, and ranks compare later"
    assert all(seconds >= 0 for seconds in part.seconds.values())
    assert part.seconds["read"] > 0
    assert part.seconds["plan"] > 0
    assert seen[0] == (0, times * wanted_bytes)
    assert seen == sorted(seen)
    assert seen[-1] == (times * wanted_bytes, times * wanted_bytes)


def test_a_rank_that_wants_a_part_counts_the_blocks_that_it_has_to_read(tmp_path: Path) -> None:
    values = full_values()
    ref = save(tmp_path, values)
    layout = rows(values, 3)
    holder = next(iter(layout.holders))
    state = rank_state(values, layout, holder, blank=True)
    watch = LoadWatch()
    load(ref, state, everything=values, verify_first=False, watch=watch)
    part = watch.part(0)
    assert part.data_bytes == sum(t.tensor.numel() * t.tensor.element_size() for t in state.tensors)
    assert part.moved_bytes > part.data_bytes, "a block is verified as a whole"


def test_what_other_nodes_send_first_counts_and_is_a_stage_of_its_own(tmp_path: Path) -> None:
    values = full_values()
    ref = save(tmp_path, values)
    seen: list[tuple[int, int]] = []
    watch = LoadWatch(lambda done, total: seen.append((done, total)))
    with watch.fetching():
        watch.to_fetch(30)
        watch.fetched(10)
        watch.fetched(20)
    layout = plain(values, 1)
    load(ref, rank_state(values, layout, next(iter(layout.holders)), blank=True), verify_first=False, watch=watch)
    part = watch.part(0)
    assert part.seconds[FETCH] > 0
    assert part.seconds["plan"] > 0
    assert seen[:3] == [(0, 30), (10, 30), (30, 30)]
    assert seen[-1] == (30 + part.moved_bytes, 30 + part.moved_bytes)
    assert part.moved_bytes == part.data_bytes, "of the storage nothing else was asked"


def test_what_fails_was_not_read(tmp_path: Path) -> None:
    values = full_values()
    ref = save(tmp_path, values)
    next((Path(ref.uri) / "data").iterdir()).unlink()
    watch = LoadWatch()
    layout = plain(values, 1)
    state = rank_state(values, layout, next(iter(layout.holders)), blank=True)
    with pytest.raises(CheckpointError):
        load(ref, state, everything=values, watch=watch)
    assert watch.part(0).moved_bytes == 0
    assert watch.part(0).seconds["read"] == 0
