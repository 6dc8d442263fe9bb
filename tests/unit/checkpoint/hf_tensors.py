"""A small model as a folder of Hugging Face's has it."""

from __future__ import annotations

import torch
from torch import nn

TENSORS = {"model.a": torch.randn(4, 3), "model.b": torch.randn(5).bfloat16(), "head": torch.arange(6).reshape(2, 3)}


def module() -> nn.Module:
    built = nn.Module()
    built.model = nn.Module()
    built.model.a = nn.Parameter(torch.zeros(4, 3))
    built.model.b = nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    built.register_buffer("head", torch.zeros(2, 3, dtype=torch.int64))
    return built
