"""Where a worker computes."""

from __future__ import annotations

import os

import torch


def pick_device() -> torch.device:
    """The node's CUDA device number ``LOCAL_RANK`` (0 if unset, as under torchrun), or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")
