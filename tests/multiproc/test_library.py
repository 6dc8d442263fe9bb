"""Checkpoints without a controller, by several processes of a ``torch.distributed`` group."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from multiproc.library_ranks import (
    Body,
    goes_on_in_ddp,
    goes_on_sharded,
    loads_boxes,
    one_rank_fails,
    one_rank_finds_damage,
    run_rank,
    saves_flat,
    saves_sharded,
)
from trainctl.checkpoint.catalog import newest

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(120)]
DEADLINE_S = 60.0


def run(body: Body, folder: Path, size: int, number: int = 0) -> None:
    """``body`` in so many processes, all of which have to come to their end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "multiproc.library_ranks"])
    errors = context.SimpleQueue()
    ranks = [context.Process(target=run_rank, args=(body, folder, r, size, number, errors)) for r in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(DEADLINE_S)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    said = [] if errors.empty() else [errors.get()]
    assert codes == [0] * size, "\n".join([str(codes), *said])


def test_fsdp_to_other_numbers_of_ranks_and_to_ddp(tmp_path: Path) -> None:
    run(saves_sharded, tmp_path, 3)
    run(goes_on_sharded, tmp_path, 2, 1)
    run(goes_on_in_ddp, tmp_path, 2, 2)


def test_irregular_flat_ranges_and_stages_load_as_boxes(tmp_path: Path) -> None:
    run(saves_flat, tmp_path, 3)
    run(loads_boxes, tmp_path, 2, 1)


def test_one_rank_that_fails_fails_all(tmp_path: Path) -> None:
    run(one_rank_fails, tmp_path, 2)
    assert newest(str(tmp_path / "c")) is None


def test_damage_that_one_rank_finds_makes_all_take_the_older_one(tmp_path: Path) -> None:
    run(one_rank_finds_damage, tmp_path, 3)
