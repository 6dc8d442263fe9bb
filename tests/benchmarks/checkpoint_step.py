"""One training step of a model that the benchmark's state could be of: the same arithmetic, and every byte written."""

from __future__ import annotations

import torch
from torch.nn import functional

from trainctl.checkpoint.live.state import PARAM, LocalState

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Step:
    """Steps on one rank's rows of all matrices, as tensor parallelism would do without its exchange of activations.

    So forward and backward are 6 operations for each parameter and token, whatever the number of ranks, and the update
    writes to every tensor of the state.

    Args:
        own: parameters, and two moments of each; what the steps change.
        tokens: in one step.
    """

    def __init__(self, own: LocalState, tokens: int) -> None:
        moments = {(held.key.fqn, held.key.kind): held.tensor for held in own.tensors}
        held = [held for held in own.tensors if held.key.kind == PARAM]
        self._weights = [one.tensor.detach().requires_grad_() for one in held]  # leaves in the same memory
        self._optimizer = torch.optim.AdamW(self._weights, lr=1e-6, fused=True)
        for one, weight in zip(held, self._weights, strict=True):
            own_moments = {kind: moments[one.key.fqn, kind] for kind in _MOMENTS}
            self._optimizer.state[weight] = {"step": torch.zeros(()), **own_moments}
        self._inputs = {
            width: torch.randn(tokens, width, requires_grad=True)
            for width in {weight.shape[-1] for weight in self._weights if weight.dim() == 2}
        }

    def forward_and_backward(self) -> None:
        """Reads the parameters, and makes a gradient of each."""
        losses = [
            (functional.linear(self._inputs[weight.shape[1]], weight) if weight.dim() == 2 else weight).square().mean()
            for weight in self._weights
        ]
        torch.autograd.backward(torch.stack(losses).sum())

    def update(self) -> None:
        """Writes parameters and moments."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        for given in self._inputs.values():
            given.grad = None
