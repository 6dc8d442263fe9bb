"""What every implementation of the collectives port must do, in threads; gloo and the world of one pass it.

Without it a dead peer could hang all others, or a sum be wrong.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
import torch

from multiproc.threads import store, world
from trainctl.core.errors import CollectiveError, InternalError
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.gloo import GlooCollectives
from trainctl.parallel.collectives.port import Collectives, Group, Rendezvous
from trainctl.parallel.collectives.solo import SoloCollectives
from trainctl.parallel.collectives.wait import Interrupted, Waiter

pytestmark = pytest.mark.multiproc
PATIENCE_S = 60.0
"""So long a rank waits for the others."""


def waiter(timeout_s: float = PATIENCE_S, aborted: Callable[[], bool] = lambda: False) -> Waiter:
    return Waiter(aborted=aborted, touch=lambda: None, where=lambda: "generation 1 step 2", timeout_s=timeout_s)


def rendezvous(rank: int, size: int, address: str, *, prefix: str = "a", timeout_s: float = PATIENCE_S) -> Rendezvous:
    return Rendezvous(
        store_address=address, prefix=prefix, rank=rank, size=size, address="127.0.0.1", timeout_s=timeout_s
    )


class CollectivesContract:
    """Subclass it with ``make`` and ``size``."""

    size = 1

    def make(self) -> Collectives:
        raise NotImplementedError

    def each(self, body: Callable[[Group], object]) -> list[object]:
        connected = threading.Barrier(self.size)

        def run(rank: int, address: str) -> object:
            pending = self.make().connect(rendezvous(rank, self.size, address))
            waiter().wait(pending, "connecting")
            connected.wait(10.0)  # whoever leaves before all others are connected makes their connecting fail
            return body(pending.group())

        return world(self.size, run)

    def test_rank_and_size(self) -> None:
        assert self.each(lambda group: (group.rank, group.size)) == [(rank, self.size) for rank in range(self.size)]

    def test_all_reduce_sums_to_the_same_bits(self) -> None:
        def body(group: Group) -> object:
            buffer = torch.full((1000,), 0.1 * (group.rank + 1))
            waiter().wait(group.all_reduce(buffer), "reduce")
            return bytes(buffer.numpy()), float(buffer[0])

        results = self.each(body)
        assert len(set(results)) == 1
        assert results[0][1] == pytest.approx(sum(0.1 * (rank + 1) for rank in range(self.size)))  # type: ignore[index]

    def test_all_gather_is_exact_and_in_rank_order(self) -> None:
        def body(group: Group) -> object:
            output = torch.zeros(2 * group.size, dtype=torch.int64)
            own = torch.tensor([group.rank, 2**62 + group.rank])
            waiter().wait(group.all_gather(output, own), "gather")
            return output.tolist()

        assert self.each(body) == [[v for r in range(self.size) for v in (r, 2**62 + r)]] * self.size

    def test_gather_json_takes_different_lengths(self) -> None:
        def body(group: Group) -> object:
            return gather_json(group, {"rank": "x" * group.rank}, waiter=waiter(), what="json")

        assert self.each(body) == [[{"rank": "x" * rank} for rank in range(self.size)]] * self.size

    def test_abandoning_never_waits(self) -> None:
        def body(group: Group) -> object:
            if group.rank == 0:
                group.all_reduce(torch.ones(10))  # the others never join
            began_s = time.monotonic()
            group.abandon()
            group.abandon()
            return time.monotonic() - began_s

        assert all(isinstance(seconds, float) and seconds < PATIENCE_S / 2 for seconds in self.each(body))


class TestSolo(CollectivesContract):
    def make(self) -> Collectives:
        return SoloCollectives(torch.device("cpu"))

    def test_two_ranks_are_refused(self) -> None:
        with pytest.raises(InternalError, match="world of one"):
            self.make().connect(rendezvous(0, 2, ""))

    def test_there_is_nobody_to_talk_to(self) -> None:
        group = self.make().connect(rendezvous(0, 1, "")).group()
        with pytest.raises(InternalError):
            group.send(torch.ones(1), 1, 0)
        with pytest.raises(InternalError):
            group.receive(torch.ones(1), 1, 0)


class TestGloo(CollectivesContract):
    size = 3

    def make(self) -> Collectives:
        return GlooCollectives()

    def test_messages_arrive_whatever_the_order(self) -> None:
        def body(group: Group) -> object:
            if group.rank == 0:
                works = [group.send(torch.full((5,), float(tag)), 2, tag) for tag in range(6)]
                for work in works:
                    waiter().wait(work, "send")
                return None
            if group.rank == 2:
                buffers = [torch.zeros(5) for _ in range(6)]
                works = [group.receive(buffers[tag], 0, tag) for tag in reversed(range(6))]
                for work in works:
                    waiter().wait(work, "receive")
                return [float(buffer[0]) for buffer in buffers]
            return None

        assert self.each(body)[2] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    def test_a_peer_that_left_is_an_error_and_the_group_stays_broken(self) -> None:
        left = threading.Event()

        def body(group: Group) -> object:
            if group.rank == 2:
                group.abandon()
                left.set()
                return None
            assert left.wait(10.0)
            for _ in range(2):
                with pytest.raises(CollectiveError, match="the sum failed in generation 1 step 2"):
                    waiter().wait(group.all_reduce(torch.ones(1000)), "the sum")
            return None

        self.each(body)

    def test_an_abort_flag_ends_the_wait(self) -> None:
        waited = threading.Event()

        def body(group: Group) -> object:
            if group.rank != 0:
                assert waited.wait(10.0)  # whoever returns closes its connections, which would be an error
                return None
            with pytest.raises(Interrupted):
                waiter(aborted=lambda: True).wait(group.all_reduce(torch.ones(10)), "the sum")
            waited.set()
            return None

        self.each(body)

    def test_a_rank_that_does_not_come_is_named(self) -> None:
        server = store()
        pending = self.make().connect(rendezvous(1, 3, f"127.0.0.1:{server.port}", timeout_s=5.0))
        assert not pending.done()
        with pytest.raises(CollectiveError, match="rank 0, 2 did not come"):
            waiter().wait(pending, "building the group")

    def test_a_store_that_does_not_answer_is_named(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            pending = self.make().connect(rendezvous(1, 3, address, timeout_s=1.0))
            with pytest.raises(CollectiveError, match=f"the collective store at {address} did not answer for 1 s"):
                waiter().wait(pending, "building the group")

    def test_a_deadline_says_what_and_where(self) -> None:
        server = store()
        pending = self.make().connect(rendezvous(0, 2, f"127.0.0.1:{server.port}", timeout_s=3.0))
        with pytest.raises(CollectiveError, match=r"building was not done after 0.2 s in generation 1 step 2"):
            waiter(timeout_s=0.2).wait(pending, "building")
        pending.abandon()

    def test_a_group_can_be_built_again_under_another_prefix(self) -> None:
        def body(rank: int, address: str) -> float:
            collectives = self.make()
            for prefix in ("a", "b"):
                pending = collectives.connect(rendezvous(rank, 2, address, prefix=prefix))
                waiter().wait(pending, "connecting")
                buffer = torch.ones(3)
                waiter().wait(pending.group().all_reduce(buffer), "reduce")
                pending.group().abandon()
            return float(buffer[0])

        assert world(2, body) == [2.0, 2.0]
