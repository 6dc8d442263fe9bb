"""Without it two workers could get one GPU, or a node offer devices that its processes cannot see."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.agent import accelerators
from trainctl.agent.accelerators import accelerator_count, device_of_slots


@pytest.mark.parametrize(
    ("slots", "first", "found", "device"), [(2, 0, 2, "cuda"), (2, 2, 2, "cpu"), (2, 2, 4, "cuda"), (1, 0, 0, "cpu")]
)
def test_a_node_offers_devices_only_if_each_slot_has_its_own(slots: int, first: int, found: int, device: str) -> None:
    assert device_of_slots(slots, first, found) == device


def test_hidden_devices_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(accelerators, "_NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert accelerator_count() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert accelerator_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerator_count() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(accelerators, "_NVIDIA", tmp_path / "absent")
    assert accelerator_count() == 0
