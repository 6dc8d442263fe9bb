"""Torch's random generators."""

from __future__ import annotations

import torch


def seed_generators(seed: int) -> None:
    """Seeds torch's generators like ``torch.manual_seed``, but without what that prepares for devices not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
