"""State on its way from other workers: every message that is there counts.

Without it a long copy to a joiner would look like a hang.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Flat, whole
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.parallel.recovery.copying import StateCopy
from trainctl.parallel.recovery.transfer import Message, Piece

KEY = StateKey("w", "param", "F32", "island-0", StateVersion(1, 5))


def test_what_is_received_is_told_message_by_message() -> None:
    tensor = torch.zeros(10)
    state = LocalState((StateTensor(KEY, (10,), whole((10,)), tensor),))
    told: list[int] = []
    waited: list[str] = []

    def receive(staged: torch.Tensor, source: int, tag: int) -> str:
        staged.copy_(torch.full((len(staged) // 4,), float(tag + 1)).view(torch.uint8))
        return f"{source}/{tag}"

    def wait(work: str, what: str) -> None:
        assert len(told) == len(waited), "what has not come is not told"
        waited.append(work)

    group: Any = SimpleNamespace(rank=1, device="cpu", receive=receive)
    waiter: Any = SimpleNamespace(wait=wait)
    messages = [
        Message(0, 1, 0, (Piece(KEY, Flat(0, 4)),)),
        Message(0, 2, 0, (Piece(KEY, Flat(0, 4)),)),
        Message(2, 1, 1, (Piece(KEY, Flat(4, 10)),)),
    ]
    copy = StateCopy(group, state, waiter=waiter, reach=lambda point: None)
    received = copy.receive(messages, writing=lambda: None, got=told.append)
    assert (told, waited) == ([16, 24], ["0/0", "2/1"])
    assert received == {"rank 0": 16, "rank 2": 24}
    assert tensor.tolist() == [1.0] * 4 + [2.0] * 6
