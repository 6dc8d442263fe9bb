"""AdamW with two parameter groups, in an order that depends on the model alone."""

from __future__ import annotations

import torch
import torch._dynamo  # AdamW's constructor does so, which takes a second: here the fork server does it for all workers
from torch import nn

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import OptimizerSpec

_FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW as the spec says; matrices decay, vectors (norms and biases) do not.

    Embeddings are matrices and decay, too: with tied weights the embedding *is* the output matrix, so the rule does not
    change with ``tieEmbeddings``. Each group carries ``param_names``, the fully qualified names in the model's order.
    The learning rate set here is only a start: the vote's outcome sets it in every step.

    Raises:
        SpecError: the spec names another optimizer.
    """
    if spec.name != "adamw":
        problem = Problem(path="spec.train.optimizer.name", message=f"expected adamw, found {spec.name!r}")
        raise SpecError((problem,), source="optimizer")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [(name, parameter) for name, parameter in named if parameter.dim() > 1]
    others = [(name, parameter) for name, parameter in named if parameter.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    beta1, beta2 = spec.betas
    fused = all(parameter.device.type in _FUSED_DEVICES for _, parameter in named)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=spec.lr, betas=(beta1, beta2), eps=spec.eps, fused=fused
    )
