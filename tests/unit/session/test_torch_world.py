"""Torch's own process group, while it is being made.

Without it a newer generation would wait for ranks of an older one that never come, until the time-out.
"""

from __future__ import annotations

import threading

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from trainctl.core.errors import CollectiveError
from trainctl.parallel.collectives.port import Rendezvous
from trainctl.parallel.collectives.torch_world import TorchWorld
from trainctl.parallel.collectives.wait import Interrupted, Waiter
from waiting import PATIENCE_S

CPU = torch.device("cpu")


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)


def place(store: TCPStore, *, size: int, timeout_s: float) -> Rendezvous:
    return Rendezvous(
        store_address=f"127.0.0.1:{store.port}", prefix=f"of-{size}", rank=0, size=size, address="127.0.0.1",
        timeout_s=timeout_s,
    )  # fmt: skip


def opened(rendezvous: Rendezvous, aborted: threading.Event, touched: threading.Event) -> type[BaseException] | None:
    """Opens and closes one; the kind of error with which that ended."""
    waiter = Waiter(aborted=aborted.is_set, touch=touched.set, where=lambda: "a test", timeout_s=rendezvous.timeout_s)
    try:
        TorchWorld.open(rendezvous, CPU, waiter).close()
    except (Interrupted, CollectiveError) as error:
        return type(error)
    return None


def test_a_newer_generation_does_not_wait_for_the_ranks_of_an_older_one(store: TCPStore) -> None:
    aborted, touched, found = threading.Event(), threading.Event(), list[type[BaseException] | None]()
    rendezvous = place(store, size=2, timeout_s=10 * PATIENCE_S)
    thread = threading.Thread(target=lambda: found.append(opened(rendezvous, aborted, touched)), daemon=True)
    thread.start()
    assert touched.wait(PATIENCE_S)
    aborted.set()
    thread.join(PATIENCE_S)
    assert found == [Interrupted]
    assert not dist.is_initialized()
    assert opened(place(store, size=1, timeout_s=PATIENCE_S), threading.Event(), threading.Event()) is None


def test_a_rank_that_does_not_come_is_an_error(store: TCPStore) -> None:
    rendezvous = place(store, size=2, timeout_s=0.1)
    assert opened(rendezvous, threading.Event(), threading.Event()) is CollectiveError
    assert not dist.is_initialized()
