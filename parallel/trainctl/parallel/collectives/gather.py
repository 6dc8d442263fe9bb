"""Small values from all ranks to all ranks, as JSON."""

from __future__ import annotations

import json
from typing import Any

import torch

from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter


def gather_bytes(group: Group, data: bytes, *, waiter: Waiter, what: str) -> list[bytes]:
    """``data`` of every rank, in rank order; lengths may differ.

    Raises:
        Interrupted, CollectiveError: as ``Waiter.wait``.
    """
    sizes = torch.zeros(group.size, dtype=torch.int64, device=group.device)
    own_size = torch.tensor([len(data)], dtype=torch.int64, device=group.device)
    waiter.wait(group.all_gather(sizes, own_size), what)
    lengths = [int(size) for size in sizes.cpu().numpy()]
    longest = max(lengths)
    own = torch.zeros(longest, dtype=torch.uint8)
    own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else own[:0]
    everything = torch.zeros(group.size * longest, dtype=torch.uint8, device=group.device)
    if longest:
        waiter.wait(group.all_gather(everything, own.to(group.device)), what)
    raw = bytes(everything.cpu().numpy())
    return [raw[rank * longest : rank * longest + length] for rank, length in enumerate(lengths)]


def gather_json(group: Group, value: Any, *, waiter: Waiter, what: str) -> list[Any]:
    """``value`` of every rank, in rank order.

    Raises:
        Interrupted, CollectiveError: as ``Waiter.wait``.
    """
    data = json.dumps(value, separators=(",", ":")).encode()
    return [json.loads(part) for part in gather_bytes(group, data, waiter=waiter, what=what)]
