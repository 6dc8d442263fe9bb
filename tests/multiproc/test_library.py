"""Checkpoints without a controller, by several processes of a ``torch.distributed`` group.

Without it scripts that use the library without a controller could hang, or load mixed saves.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from multiproc.library_ranks import (
    Body,
    ddp_beside,
    goes_on_alone,
    goes_on_from_beside,
    goes_on_in_ddp,
    goes_on_sharded,
    loads_boxes,
    loads_columns_and_replicas,
    one_rank_fails,
    one_rank_fails_beside,
    one_rank_finds_damage,
    one_rank_has_what_cannot_be_saved,
    one_rank_is_killed_beside,
    one_rank_makes_another_call,
    replicas_are_compared,
    saves_flat,
    saves_rows,
    saves_sharded,
    sharded_beside,
)
from multiproc.library_runs import run
from trainctl.checkpoint.kept.catalog import newest, survey

pytestmark = pytest.mark.multiproc


def test_fsdp_to_other_numbers_of_ranks_and_to_ddp(tmp_path: Path) -> None:
    run(saves_sharded, tmp_path, 3)
    run(goes_on_sharded, tmp_path, 2, 1)
    run(goes_on_in_ddp, tmp_path, 2, 2)


def test_irregular_flat_ranges_and_stages_load_as_boxes(tmp_path: Path) -> None:
    run(saves_flat, tmp_path, 3)
    run(loads_boxes, tmp_path, 2, 1)


def test_rows_become_columns_and_replicas(tmp_path: Path) -> None:
    """Four ranks that all send to each other at once: without a thread for each peer they wait for ever."""
    run(saves_rows, tmp_path, 3)
    run(loads_columns_and_replicas, tmp_path, 4, 1)


def test_one_rank_that_fails_fails_all(tmp_path: Path) -> None:
    run(one_rank_fails, tmp_path, 2)
    assert newest(str(tmp_path / "c")) is None


def test_one_rank_that_fails_before_all_compare_what_they_hold_fails_all(tmp_path: Path) -> None:
    run(one_rank_has_what_cannot_be_saved, tmp_path, 2)
    assert [info.ref.step for info in survey(str(tmp_path / "c")).checkpoints] == [3, 1]


def test_what_ranks_do_not_ask_for_alike_is_found_before_anything_is_written(tmp_path: Path) -> None:
    run(one_rank_makes_another_call, tmp_path, 3)


def test_replicas_that_differ_are_not_mixed_where_somebody_asks_for_that(tmp_path: Path) -> None:
    run(replicas_are_compared, tmp_path, 3)


def test_damage_that_one_rank_finds_makes_all_take_the_older_one(tmp_path: Path) -> None:
    run(one_rank_finds_damage, tmp_path, 3)


@pytest.mark.parametrize("body", [ddp_beside, sharded_beside])
def test_beside_the_training_the_same_is_saved_as_at_once(tmp_path: Path, body: Body) -> None:
    run(body, tmp_path, 2)
    assert [info.ref.step for info in survey(str(tmp_path / "c")).checkpoints] == [6, 3]
    run(goes_on_from_beside, tmp_path, 3, 1)


def test_a_rank_that_fails_beside_the_training_fails_the_save_of_all_and_nothing_else(tmp_path: Path) -> None:
    run(one_rank_fails_beside, tmp_path, 2)
    assert [info.ref.step for info in survey(str(tmp_path / "c")).checkpoints] == [4, 3]


def test_a_rank_that_is_killed_in_the_middle_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    run(one_rank_is_killed_beside, tmp_path, 4, killed={1})
    assert sorted(path.name for path in tmp_path.glob("survived-*")) == ["survived-0", "survived-2", "survived-3"]
    found = newest(str(tmp_path / "c"))
    assert found is not None
    assert found.step == 1
    run(goes_on_alone, tmp_path, 1, 1)
