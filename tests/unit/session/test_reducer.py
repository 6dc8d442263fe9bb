"""The reduction of the gradients: in place when it succeeds, in new memory when it does not.

Without it a reduction that fails half way could leave gradients that were added twice.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainctl.checkpoint.exchange.port import Work
from trainctl.parallel.collectives.solo import DoneWork, SoloGroup
from trainctl.parallel.collectives.wait import Interrupted, Waiter
from trainctl.parallel.replica.gradients import FlatGradients
from trainctl.parallel.session.reducer import GradientReducer


class _Endless(DoneWork):
    """What a frozen peer leaves: it may end, and write, at any later time."""

    def done(self) -> bool:
        return False

    def done_within(self, timeout_s: float) -> bool:
        return False


class _Pair(SoloGroup):
    """Two ranks of which the other always has the same gradients; the operation ``endless`` does not end."""

    size = 2

    def __init__(self, endless: int = -1) -> None:
        super().__init__(torch.device("cpu"))
        self._endless = endless
        self.buffers: list[Tensor] = []

    def all_reduce(self, buffer: Tensor) -> Work:
        self.buffers.append(buffer)
        if len(self.buffers) - 1 == self._endless:
            return _Endless()
        buffer.mul_(2)
        return DoneWork()


def _gradients() -> tuple[torch.nn.Module, FlatGradients]:
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    gradients = FlatGradients(torch.optim.SGD(model.parameters(), lr=0.1).param_groups)
    gradients.clear()
    return model, gradients


def _backward(model: torch.nn.Module) -> list[Tensor]:
    model(torch.ones(2, 5)).sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def _waiter(*, aborted: bool) -> Waiter:
    return Waiter(aborted=lambda: aborted, touch=lambda: None, where=lambda: "a test", timeout_s=10.0)


@pytest.mark.parametrize("bucket_bytes", [4, 100, 1 << 20])
def test_sums_in_place_whatever_the_buckets(bucket_bytes: int) -> None:
    model, gradients = _gradients()
    expected = _backward(model)
    group = _Pair()
    GradientReducer(gradients, group, bucket_bytes=bucket_bytes).reduce(_waiter(aborted=False))
    assert sum(buffer.numel() for buffer in group.buffers) == sum(p.numel() for p in model.parameters())
    for parameter, own in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * own)


@pytest.mark.parametrize("endless", [0, 1, 3])
def test_memory_of_a_collective_left_behind_is_never_used_again(endless: int) -> None:
    model, gradients = _gradients()
    expected = _backward(model)
    group = _Pair(endless)
    with pytest.raises(Interrupted):
        GradientReducer(gradients, group, bucket_bytes=40).reduce(_waiter(aborted=True))
    gradients.check_bound()
    assert _backward(model)[0].equal(expected[0]), "the new memory does not start with zeros"
    for buffer in group.buffers:
        buffer.fill_(float("nan"))  # the frozen peer wakes up, and the old collective ends
    assert all(torch.isfinite(buffer.tensor).all() for buffer in gradients.buffers)
    for parameter, own in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, own)
