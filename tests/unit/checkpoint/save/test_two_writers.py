"""Two leaders' generations save the same step at once: their calls come in any order (`make chaos`: in every one).

Without it a job after a fail-over could go back to the wrong one of two saves.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.engine import CheckpointWriter, load
from trainctl.checkpoint.kept.catalog import inspect, newest, survey
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.layout.region import whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.manifest.names import part_path
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import FencedError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, rows, same_bits, save, save_parts
from waiting import PATIENCE_S

STEP = 2
VALUES = full_values({"w": (6,), "v": (4, 3)})
OF_EPOCH = {epoch: {k: v + epoch for k, v in at_step(VALUES, STEP).items()} for epoch in (3, 4)}
"""Other bits in each, so that a mixture would show."""
Body = Callable[["Turn"], None]


class Turn:
    """One of those who take turns: it stands before each of its calls until it is let go on."""

    def __init__(self, body: Body) -> None:
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(body,), daemon=True)
        self._thread.start()
        self._wait()

    def stand(self) -> None:
        """Called before each call."""
        self._stands.release()
        assert self._go.acquire(timeout=PATIENCE_S)

    def step(self) -> None:
        """One call more."""
        self._go.release()
        self._wait()

    def end(self) -> None:
        while not self.over:
            self.step()

    def _wait(self) -> None:
        assert self._stands.acquire(timeout=PATIENCE_S)

    def _run(self, body: Body) -> None:
        try:
            body(self)
        except BaseException as error:
            self.error = error
        self.over = True
        self._stands.release()


class Slowly:
    """A storage of which every part of an attempt, its table of contents and its seal wait for their turn."""

    def __init__(self, storage: Storage, turn: Turn) -> None:
        self._storage, self._turn = storage, turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def write_file(self, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        if not path.endswith((part_path(0), part_path(1))):  # in a folder of its own, right after its data
            self._turn.stand()
        return self._storage.write_file(path, buffers)

    def create_file(self, path: str, data: bytes) -> None:
        self._turn.stand()
        self._storage.create_file(path, data)


def writer(uri: Path, turn: Turn) -> CheckpointWriter:
    made = CheckpointWriter(str(uri), faults=FaultPlan())
    made._storage = Slowly(made._storage, turn)
    return made


def described(epoch: int) -> LocalState:
    values = OF_EPOCH[epoch].items()
    return LocalState(tuple(StateTensor(k, tuple(v.shape), whole(tuple(v.shape)), v) for k, v in values))


def saving(uri: Path, epoch: int, parent: CheckpointRef) -> Body:
    """Parts of two ranks and the seal; the newer one is then current, and older ones go."""

    def body(turn: Turn) -> None:
        one, of = writer(uri, turn), attempt(STEP, epoch=epoch)
        parts = save_parts(one, OF_EPOCH[epoch], rows(OF_EPOCH[epoch], 2), of)
        ref = one.seal(of, state=described(epoch), parts=parts, parent=parent)
        if epoch == 4:
            turn.stand()
            retain(str(uri), job=of.job, keep=1, current=ref.attempt, protect=frozenset({ref.attempt}))

    return body


def check(uri: Path) -> tuple[int, ...]:
    """The epochs in which the step is complete: each is whole, nothing is torn, and the newest one is the newer's."""
    found = survey(str(uri))
    assert found.unusable == ()
    epochs = [info.manifest.epoch for info in found.checkpoints if info.ref.step == STEP]
    for info in found.checkpoints:
        values = OF_EPOCH[info.manifest.epoch] if info.ref.step == STEP else at_step(VALUES, 1)
        state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
        load(info.ref, state)
        assert all(same_bits(held.tensor, values[held.key]) for held in state.tensors)
    best = newest(str(uri))
    assert best is not None
    assert inspect(best.uri).manifest.epoch == max(epochs, default=1)
    return tuple(sorted(epochs))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def calls_of(body: Body) -> int:
    turn = Turn(body)
    count = 0
    while not turn.over:
        turn.step()
        count += 1
    assert turn.error is None
    return count


def orders(first: int, second: int) -> Iterator[list[int]]:
    """Every way to merge two rows of calls: whose turn it is."""
    for places in itertools.combinations(range(first + second), first):
        yield [0 if index in places else 1 for index in range(first + second)]


@contextmanager
def started(*bodies: Body) -> Iterator[list[Turn]]:
    turns = [Turn(body) for body in bodies]
    try:
        yield turns
    finally:
        for turn in turns:
            turn.end()


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.chaos)])
def test_any_order_of_two_writers_leaves_whole_checkpoints_and_the_newer_epochs_wins(
    tmp_path: Path, every: int
) -> None:
    def folder(name: object) -> tuple[Path, CheckpointRef]:
        uri = tmp_path / str(name)
        return uri, save(uri, at_step(VALUES, 1), of=attempt(1))

    for epoch, count in ((3, 4), (4, 5)):
        uri, first = folder(f"alone-{epoch}")
        assert calls_of(saving(uri, epoch, first)) == count, "two parts, the contents, the seal; and the removal"
        assert check(uri) == (epoch,)
    ends: set[tuple[int, ...]] = set()
    for number, order in enumerate(itertools.islice(orders(4, 5), 0, None, every)):
        uri, first = folder(number)
        with started(saving(uri, 3, first), saving(uri, 4, first)) as turns:
            calls, complete = [0, 0], set[int]()
            for who in order:
                turns[who].step()
                calls[who] += 1
                if calls[who] >= 4:  # it is sealed; the newer one's fifth call removes
                    complete |= {3 + who}
                    assert check(uri) in (tuple(sorted(complete)), (4,))
            assert all(turn.over and turn.error is None for turn in turns)
        ends.add(check(uri))
    assert ends == {(4,), (3, 4)}, "the older one's goes, unless it was completed after that"


@pytest.mark.parametrize("order", list(orders(2, 2)), ids=lambda order: "".join("34"[who] for who in order))
def test_of_two_who_complete_the_same_attempt_one_does_and_the_other_hears_of_it(
    tmp_path: Path, order: list[int]
) -> None:
    first = save(tmp_path, at_step(VALUES, 1), of=attempt(1))
    of = attempt(STEP, epoch=3)
    values = OF_EPOCH[3]
    parts = save_parts(CheckpointWriter(str(tmp_path), faults=FaultPlan()), values, rows(values, 2), of)

    def sealing(named: Attempt, parts: list[PartReport]) -> Body:
        return lambda turn: void(writer(tmp_path, turn).seal(named, state=described(3), parts=parts, parent=first))

    with started(sealing(of, list(parts)), sealing(replace(of, epoch=4), list(parts))) as turns:
        for who in order:
            turns[who].step()
    errors = [turn.error for turn in turns]
    assert [type(error) for error in errors if error is not None] == [FencedError]
    (info,) = (info for info in survey(str(tmp_path)).checkpoints if info.ref.step == STEP)
    assert info.manifest.epoch == (3, 4)[errors.index(None)]
    state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
    load(info.ref, state)
    assert all(same_bits(held.tensor, values[held.key]) for held in state.tensors)


def void(_: object) -> None:
    """What is sealed is read from the folder."""
