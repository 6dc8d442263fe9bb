"""What a job that waits says. Without it people would look for the wrong number of nodes."""

from __future__ import annotations

import pytest

from trainctl.controller.domain.placement import describe_room
from trainctl.controller.domain.reconcile.place import describe_wait
from trainctl.core.records.spec import ResourcesSpec
from unit.domain.moment import NOW_S, Moment
from unit.domain.one_job import start


def test_it_says_how_many_are_missing(moment: Moment) -> None:
    assert describe_wait(moment.work, 0, NOW_S - 90.0) == (
        "0 of at least 1 node left for 1m30s; needs 1 more with 2 free worker slots each"
    )


@pytest.mark.parametrize(("bound", "missing"), [(0, 3), (1, 2), (2, 1)])
def test_of_several(moment: Moment, bound: int, missing: int) -> None:
    moment.state = start(nodes=3, agents=3, least=3).state
    assert f"{bound} of at least 3 nodes left" in describe_wait(moment.work, bound, NOW_S)
    assert f"needs {missing} more" in describe_wait(moment.work, bound, NOW_S)


def test_room_is_counted_in_slots() -> None:
    assert describe_room(ResourcesSpec(workers_per_node=1)) == "1 free worker slot"
    assert describe_room(ResourcesSpec(workers_per_node=4)) == "4 free worker slots"
    assert describe_room(ResourcesSpec(workers_per_node=1, accelerators_per_node=1)).endswith("with an accelerator")
