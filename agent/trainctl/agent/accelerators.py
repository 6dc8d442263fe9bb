"""What the workers of this node compute on."""

from __future__ import annotations

import os
from pathlib import Path

_NVIDIA = Path("/proc/driver/nvidia/gpus")


def accelerator_count() -> int:
    """CUDA devices that processes started from here see; asks the driver's folder, so that torch is not needed."""
    found = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else min(found, len([name for name in visible.split(",") if name.strip()]))


def device_of_slots(slots: int, first_local_rank: int, accelerators: int) -> str:
    """``cuda`` if each slot has a device of its own, else ``cpu``: worker ``n`` of a machine takes device ``n``."""
    return "cuda" if accelerators >= first_local_rank + slots else "cpu"
