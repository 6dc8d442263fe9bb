"""Which implementation of the collectives port serves a device."""

from __future__ import annotations

import torch

from trainctl.parallel.collectives.gloo import GlooCollectives
from trainctl.parallel.collectives.nccl import NcclCollectives
from trainctl.parallel.collectives.port import Collectives


def collectives_for(device: torch.device) -> Collectives:
    """NCCL between CUDA devices, gloo between everything else."""
    return NcclCollectives(device) if device.type == "cuda" else GlooCollectives()
