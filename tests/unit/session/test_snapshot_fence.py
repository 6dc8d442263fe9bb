"""The step waits for whoever reads the state, and no longer than it says."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.session import Session, step_protocol
from trainctl.parallel.session import session as session_module
from trainctl.parallel.session.fence import SnapshotFence

DEADLINE_S = 20.0


class Copying:
    """A snapshot in flight: a thread that copies the weights once the step has come to the fence."""

    def __init__(self, model: nn.Module) -> None:
        self.copied: list[torch.Tensor] = []
        self.finishes = 0
        self._at_fence, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._copy, args=(model,))
        self._thread.start()

    def _copy(self, model: nn.Module) -> None:
        if self._at_fence.wait(DEADLINE_S):
            self.copied = [parameter.detach().clone() for parameter in model.parameters()]
            self._done.set()

    def finish(self, timeout_s: float) -> bool:
        self.finishes += 1
        self._at_fence.set()
        return self._done.wait(timeout_s)

    def drop(self) -> None:
        raise AssertionError("it was done in time")

    def join(self) -> None:
        self._at_fence.set()
        self._thread.join(DEADLINE_S)


class Stuck:
    """A snapshot that never comes to its end; it looks at the weights when it is given up."""

    def __init__(self, model: nn.Module) -> None:
        self.waited_s: list[float] = []
        self.at_drop: list[list[torch.Tensor]] = []
        self._model = model
        self._never = threading.Event()

    def finish(self, timeout_s: float) -> bool:
        self.waited_s.append(timeout_s)
        return self._never.wait(timeout_s)

    def drop(self) -> None:
        self.at_drop.append([parameter.detach().clone() for parameter in self._model.parameters()])


@pytest.fixture
def fence(monkeypatch: pytest.MonkeyPatch) -> SnapshotFence:
    """That of the next session."""
    fence = SnapshotFence()
    monkeypatch.setattr(session_module, "SnapshotFence", lambda: fence)
    return fence


def opened() -> tuple[nn.Module, Callable[[], None]]:
    """A model, and what takes one step with it."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    session = Session.open()
    session.register(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))
    batch = BatchSpec(sequences=2, micro_batches=2)
    session.set_data(num_samples=9, steps=3, batch=batch, seed=1, schedule=lambda _: 0.1)

    def step() -> None:
        with session.step() as step:
            for _ in step.micro_batches():
                step.backward(model(torch.ones(1, 3)).square().sum(), 1)

    return model, step


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def test_the_state_does_not_change_before_a_snapshot_has_read_it(fence: SnapshotFence) -> None:
    model, step = opened()
    before = weights(model)
    readers = [Copying(model), Copying(model)]
    for reader in readers:
        fence.add(reader)
    try:
        step()
        after = weights(model)
        step()
    finally:
        for reader in readers:
            reader.join()
    assert not same(before, after)
    for reader in readers:
        assert same(reader.copied, before)
        assert reader.finishes == 1, "what has been read is not waited for again"


def test_a_snapshot_that_takes_too_long_is_given_up_before_the_state_changes(
    fence: SnapshotFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_protocol, "_FENCE_S", 0.05)
    model, step = opened()
    before = weights(model)
    stuck = Stuck(model)
    fence.add(stuck)
    step()
    assert not same(before, weights(model)), "the step was taken"
    step()
    assert stuck.waited_s == [0.05]
    (seen,) = stuck.at_drop
    assert same(seen, before)
