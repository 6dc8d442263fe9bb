"""A value of each of many live tensors: finds writes that torch does not count, which an optimizer's kernel may do.

Torch counts what is changed in place, but not what goes through ``.data``, a NumPy array or a foreign kernel. Such
writers seldom change one element alone: they update whole parameters. Only for what the host sees: a device would have
to be waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.live.state import StateTensor

_TENSORS = 256
"""At most so many are looked at, spread over all: training waits meanwhile, 5 microseconds for each."""


class Samples:
    """The middle element of each, as it is now.

    Args:
        live: the tensors.
    """

    def __init__(self, live: Sequence[StateTensor]) -> None:
        here = [one for one in live if one.tensor.numel()]
        chosen = here[:: -(-len(here) // _TENSORS) or 1]
        self._taken = [(one.key, view, view.clone()) for one in chosen for view in (_middle(one.tensor),)]

    def changed(self) -> StateKey | None:
        """One whose element has other bits now; None if there is none."""
        return next((key for key, view, before in self._taken if not torch.equal(view, before)), None)


def _middle(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes, in the tensor's own memory, whatever its strides."""
    element = tensor.detach()[tuple(length // 2 for length in tensor.shape)]
    return element.reshape(1).view(torch.uint8)
