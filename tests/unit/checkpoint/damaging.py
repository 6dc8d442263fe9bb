"""Damage to files of a checkpoint."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
