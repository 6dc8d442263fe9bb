"""Sampling text from a model, one token at a time and without a cache: for demos and tests, not for serving."""

from __future__ import annotations

import torch
from torch import Tensor

from trainctl.parallel.models.llama import Llama


@torch.no_grad()
def generate(model: Llama, ids_T: Tensor, count: int, *, temperature: float = 1.0, seed: int = 0) -> Tensor:
    """Continues a text by ``count`` tokens; the same seed gives the same text.

    Args:
        model: left in the mode (train or eval) it was in; dropout is off while sampling.
        ids_T: the text so far, at least one token; only the last ``model.context`` tokens are looked at.
        count: tokens to add.
        temperature: 0 takes the likeliest token every time.
        seed: of the sampling.

    Returns:
        The whole text, shape (T + count,).
    """
    generator = torch.Generator(device=ids_T.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    for _ in range(count):
        logits_V = model(ids_T[None, -model.context :])[0, -1].float()
        if temperature == 0:
            next_1 = logits_V.argmax(keepdim=True)
        else:
            next_1 = torch.multinomial((logits_V / temperature).softmax(-1), 1, generator=generator)
        ids_T = torch.cat((ids_T, next_1))
    model.train(was_training)
    return ids_T
