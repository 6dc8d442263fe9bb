"""Without it preparing batches ahead could change what is trained on, hide an error, or block a recovery."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Sequence

import pytest

from trainctl.parallel.data.prefetch import Prefetcher
from waiting import PATIENCE_S


class Maker:
    """Makes tuples; notes what, by which thread, and can be held up."""

    def __init__(self) -> None:
        self.made: list[tuple[int, ...]] = []
        self.threads: set[str] = set()
        self.wake = threading.Condition()
        self.bad: set[int] = set()

    def __call__(self, ids: Sequence[int]) -> list[int]:
        with self.wake:
            self.made.append(tuple(ids))
            self.threads.add(threading.current_thread().name)
            self.wake.notify_all()
        if self.bad & set(ids):
            raise ValueError(f"sample {ids[0]} is broken")
        return [10 * i for i in ids]

    def wait_for(self, count: int) -> None:
        with self.wake:
            assert self.wake.wait_for(lambda: len(self.made) >= count, PATIENCE_S)


def test_what_comes_next_is_made_before_it_is_asked_for() -> None:
    make = Maker()
    with Prefetcher(make, depth=2) as batches:
        assert batches.take((1, 2), [(3,), (4,), (5,)]) == [10, 20]
        make.wait_for(3)
        assert make.made == [(1, 2), (3,), (4,)]
        assert batches.take((3,), [(4,), (5,)]) == [30]
        make.wait_for(4)
        assert make.made == [(1, 2), (3,), (4,), (5,)]
    assert make.threads == {"prefetch"}
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_change_of_members_throws_away_what_does_not_fit() -> None:
    make = Maker()
    with Prefetcher(make, depth=2) as batches:
        batches.take((1,), [(2,), (3,)])
        make.wait_for(3)
        assert batches.take((7,), [(2,), (8,)]) == [70]
        make.wait_for(5)
        assert batches.take((2,)) == [20]
        assert batches.take((3,)) == [30]
    assert make.made == [(1,), (2,), (3,), (7,), (8,), (3,)]


def test_without_depth_each_is_made_when_it_is_needed() -> None:
    make = Maker()
    with Prefetcher(make, depth=0) as batches:
        assert batches.take((1,), [(2,)]) == [10]
    assert make.made == [(1,)]
    assert make.threads == {threading.main_thread().name}


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_error_comes_out_where_its_batch_is_taken_with_its_traceback(depth: int) -> None:
    make = Maker()
    make.bad = {2}
    with Prefetcher(make, depth=depth) as batches:
        assert batches.take((1,), [(2,), (3,)]) == [10]
        with pytest.raises(ValueError, match="sample 2 is broken") as caught:
            batches.take((2,), [(3,)])
        assert "__call__" in {frame.name for frame in traceback.extract_tb(caught.value.__traceback__)}
        assert batches.take((3,)) == [30]


def test_an_error_of_a_batch_that_is_never_taken_hurts_nobody() -> None:
    make = Maker()
    make.bad = {2}
    with Prefetcher(make, depth=2) as batches:
        batches.take((1,), [(2,), (3,)])
        make.wait_for(3)
        assert batches.take((3,)) == [30]


def test_a_wait_shows_life_and_can_be_ended() -> None:
    class CalledAway(BaseException):
        pass

    class Slow(Maker):
        def __call__(self, ids: Sequence[int]) -> list[int]:
            released.wait(PATIENCE_S)
            return super().__call__(ids)

    released, waits = threading.Event(), list[float]()

    def look(waited_s: float) -> None:
        waits.append(waited_s)
        if len(waits) == 3:
            raise CalledAway

    with Prefetcher(Slow(), depth=2) as batches:
        with pytest.raises(CalledAway):
            batches.take((1,), [(2,)], look)
        assert waits == sorted(waits)
        released.set()
        assert batches.take((1,)) == [10]


@pytest.mark.parametrize("seed", range(10))
def test_it_never_changes_what_is_trained(seed: int) -> None:
    drawn, make = random.Random(seed), Maker()
    with Prefetcher(make, depth=drawn.randint(0, 4)) as batches:
        for _ in range(200):
            ids = tuple(drawn.randrange(30) for _ in range(drawn.randint(1, 2)))
            upcoming = [(drawn.randrange(30),) for _ in range(drawn.randint(0, 5))]
            assert batches.take(ids, upcoming) == [10 * i for i in ids]
