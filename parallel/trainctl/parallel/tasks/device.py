"""Where a worker computes."""

from __future__ import annotations

import os

import torch

from trainctl.core.errors import PreconditionError
from trainctl.core.records.spec import ResourcesSpec

LOCAL_RANK_VARIABLE = "LOCAL_RANK"
"""Number of the worker on its node, which its agent sets; as under torchrun."""


def device_of(resources: ResourcesSpec) -> torch.device:
    """The CPU, or for a job with accelerators the CUDA device with this worker's number on the node.

    Raises:
        PreconditionError: the node has no such device.
    """
    if not resources.accelerators_per_node:
        return torch.device("cpu")
    number = int(os.environ.get(LOCAL_RANK_VARIABLE, "0"))
    found = torch.cuda.device_count()
    if number >= found:
        raise PreconditionError(
            f"expected CUDA device {number} for worker {number} of this node, found {found} device(s)",
            hint="lower spec.resources.workersPerNode, or set acceleratorsPerNode: 0 to train on CPUs",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
