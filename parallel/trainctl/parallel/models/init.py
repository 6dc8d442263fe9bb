"""Initial weights as a function of (seed, parameter name) only.

A worker that builds one stage, one shard or the whole model gets the same numbers, whatever the world size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn


@torch.no_grad()
def init_normal(model: nn.Module, *, seed: int, std: Mapping[str, float]) -> None:
    """Fills each named parameter from N(0, std^2); parameters without an entry in ``std`` stay as they are.

    Drawn in float32 on the CPU and then cast, so float32 and float64 runs, and all devices, start from the same model.

    Args:
        model: its ``named_parameters`` are filled in place.
        seed: of the run.
        std: standard deviation by parameter name.
    """
    for name, parameter in model.named_parameters():
        if name in std:
            generator = torch.Generator().manual_seed(_seed_of(seed, name))
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std[name], generator=generator))


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
