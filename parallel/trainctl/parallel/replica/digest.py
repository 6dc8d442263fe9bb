"""A fast digest of tensors, to see that ranks hold the same bits; it finds accidents, not attacks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainctl.parallel.plan.randomness import MASK_64, mix64

_BLOCK_WORDS = 1 << 16


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """16 hex digits that depend on every bit of the tensors, on its place, and on their order."""
    weights = torch.arange(1, 2 * _BLOCK_WORDS, 2, dtype=torch.int64)  # odd: a factor that loses no bit
    products = torch.empty(_BLOCK_WORDS, dtype=torch.int64)
    state = 0
    for tensor in tensors:
        for words in _blocks(tensor):
            torch.mul(words, weights[: words.numel()], out=products[: words.numel()])
            state = mix64(state ^ (int(products[: words.numel()].sum()) & MASK_64))
        state = mix64(state ^ tensor.numel())
    return f"{state:016x}"


def _blocks(tensor: Tensor) -> Iterable[Tensor]:
    """The tensor's bytes as 8-byte words, a block at a time; a last odd piece is filled up with zeros."""
    flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
    whole = flat.numel() // 8 * 8
    if flat.storage_offset() * flat.element_size() % 8 == 0:
        yield from torch.split(flat[:whole].view(torch.int64), _BLOCK_WORDS)
    else:
        yield from torch.split(flat[:whole].clone().view(torch.int64), _BLOCK_WORDS)
    if whole < flat.numel():
        last = torch.zeros(8, dtype=torch.uint8)
        last[: flat.numel() - whole] = flat[whole:]
        yield last.view(torch.int64)
