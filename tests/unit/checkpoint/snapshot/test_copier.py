"""Copies from a device are of the snapshot's moment, whatever order its queues are in, and training waits for no more.

Without it a snapshot could hold half of one step and half of the next.

The device is a fake of two queues (``fake_device``). What is left out of the copier on purpose is found out, too.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.live.state import BUFFER, LocalState
from trainctl.checkpoint.save.saving import Portion, assign
from trainctl.checkpoint.snapshot import copier as copier_module
from trainctl.checkpoint.snapshot import stowage
from trainctl.checkpoint.snapshot.copier import DeviceCopier, HostCopier, copier_of, cuda_devices
from trainctl.checkpoint.snapshot.cuda import CudaDevice
from trainctl.checkpoint.snapshot.host_pool import HostBuffer, HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from unit.checkpoint.fake_device import BESIDE, TRAINING, FakeCopier, FakeDevice, FakeEvent, copier
from unit.checkpoint.ranks import key, plain, rank_state
from waiting import PATIENCE_S

WEIGHT, MOMENT, RUNNING = key("w"), key("w", kind="exp_avg"), key("mean", kind=BUFFER)
CHUNK_BYTES, IN_FLIGHT_BYTES = 16, 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stowage, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(copier_module, "IN_FLIGHT_BYTES", IN_FLIGHT_BYTES)


class WithoutMoment(FakeCopier):
    """Does not wait for what the training was told before."""

    @contextlib.contextmanager
    def beside_training(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for device in self._devices.values():
                stack.enter_context(device.beside())
            self._beside = True
            yield


class WithoutHolding(FakeCopier):
    """Does not make training wait for what is on its way."""

    def hold_back(self) -> None:
        pass


class WithoutFinish(FakeCopier):
    """Does not wait until everything has arrived."""

    def finish(self) -> None:
        for device in self._devices.values():
            device.mark().synchronize()


@dataclass
class Trained:
    """A weight, its moment and a buffer, all of one value each, which the device's training changes."""

    device: FakeDevice
    state: LocalState
    assigned: Portion
    buffer: HostBuffer

    @classmethod
    def on(cls, device: FakeDevice) -> Trained:
        values = {WEIGHT: torch.zeros(30), MOMENT: torch.zeros(30), RUNNING: torch.zeros(3)}
        layout = plain(values, 1)
        state, assigned = rank_state(values, layout, rank_holder(0)), assign(layout)[rank_holder(0)]
        buffer = HostPool(1).take(stowage.stow(state, assigned).size_bytes)
        assert buffer is not None
        return cls(device, state, assigned, buffer)

    def tensor(self, of: StateKey) -> torch.Tensor:
        (found,) = [held.tensor for held in self.state.tensors if held.key == of]
        return found

    def tell(self, of: StateKey, value: float) -> None:
        """Has the device set a tensor. Its version stays: that is the host's matter, which is in order here."""
        values = self.tensor(of).numpy()
        self.device.train(lambda: values.fill(value))

    def update(self, value: float) -> None:
        self.tell(WEIGHT, value)
        self.tell(MOMENT, value)

    def snapshot(self, kind: type[FakeCopier] = FakeCopier) -> Snapshot:
        return Snapshot(
            self.state, stowage.stow(self.state, self.assigned), self.buffer, copier=copier(self.device, kind)
        )


def copied(snapshot: Snapshot) -> dict[StateKey, set[float]]:
    return {entry.key: set(copy.tolist()) for entry, copy in snapshot.data.items()}


def once(do: Callable[[], None]) -> Callable[[], None]:
    left = [do]
    return lambda: left.pop()() if left else None


def copies_of_a_step(device: FakeDevice, kind: type[FakeCopier]) -> dict[StateKey, set[float]]:
    """The copy of the state after update 1, while the device is late; update 2 follows as soon as the fence allows."""
    trained = Trained.on(device)
    trained.update(1.0)
    trained.tell(RUNNING, 1.0)
    snapshot = trained.snapshot(kind)
    trained.tell(RUNNING, 2.0)

    def fence_and_update() -> None:
        if snapshot.fence(0.0):
            trained.update(2.0)

    device.before_synchronize = once(fence_and_update)  # when copying first waits for the device: all chunks are begun
    snapshot.copy()
    return copied(snapshot)


OF_ITS_MOMENT = {WEIGHT: {1.0}, MOMENT: {1.0}, RUNNING: {1.0}}
TRAINING_FIRST, COPIES_FIRST = (TRAINING, BESIDE), (BESIDE, TRAINING)


@pytest.fixture
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All chunks may be on their way, so that copying waits for the device at the end only."""
    monkeypatch.setattr(copier_module, "IN_FLIGHT_BYTES", 1 << 20)


@pytest.mark.usefixtures("all_at_once")
@pytest.mark.parametrize("order", [TRAINING_FIRST, COPIES_FIRST])
def test_copies_are_of_their_moment_whichever_queue_is_first(order: tuple[str, str]) -> None:
    assert copies_of_a_step(FakeDevice(order), FakeCopier) == OF_ITS_MOMENT


@pytest.mark.usefixtures("all_at_once")
@pytest.mark.parametrize(
    ("order", "kind", "torn"),
    [
        (COPIES_FIRST, WithoutMoment, {WEIGHT: {0.0}, MOMENT: {0.0}, RUNNING: {1.0}}),
        (TRAINING_FIRST, WithoutHolding, {WEIGHT: {2.0}, MOMENT: {2.0}, RUNNING: {1.0}}),
        (TRAINING_FIRST, WithoutFinish, {WEIGHT: {0.0}, MOMENT: {0.0}, RUNNING: {1.0}}),
    ],
)
def test_a_wait_that_is_left_out_is_found_out(
    order: tuple[str, str], kind: type[FakeCopier], torn: dict[StateKey, set[float]]
) -> None:
    """Of this test's own fake: it would let no such mistake pass."""
    assert copies_of_a_step(FakeDevice(order), kind) == torn


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), turns=st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_snapshot_of_every_step_in_any_order_of_the_queues(seed: int, turns: list[int]) -> None:
    device = FakeDevice(seed=seed)
    trained = Trained.on(device)
    for step, count in enumerate(turns, start=1):
        trained.update(step)
        trained.tell(RUNNING, step)
        for _ in range(count):
            device.turn()
        snapshot = trained.snapshot()
        for _ in range(count):
            device.turn()
        trained.tell(RUNNING, -step)
        device.before_synchronize = device.turn  # the device and the copying thread go on together
        snapshot.copy()
        assert snapshot.fence(0.0)
        assert copied(snapshot) == {WEIGHT: {step}, MOMENT: {step}, RUNNING: {step}}
    device.run()


def test_nobody_waits_for_the_device_at_the_moment_or_at_the_fence() -> None:
    device = FakeDevice()
    trained = Trained.on(device)
    trained.update(1.0)
    snapshot = trained.snapshot()
    assert device.synchronized == 0, "buffers are copied in the training's own order"
    snapshot.copy()
    before = device.synchronized
    assert snapshot.fence(0.0)
    assert device.synchronized == before
    assert device.told[-2:] == [f"{BESIDE}: mark", f"{TRAINING}: wait"]


@pytest.mark.usefixtures("all_at_once")
def test_whoever_passes_the_fence_later_waits_as_well() -> None:
    """As where another thread, whose queue is another, waited for the save before the update came."""
    device = FakeDevice(TRAINING_FIRST)
    trained = Trained.on(device)
    trained.update(1.0)
    snapshot = trained.snapshot()

    def fence_twice_and_update() -> None:
        with device.queue("another"):
            assert snapshot.fence(0.0)
        assert snapshot.fence(0.0)
        trained.update(2.0)

    device.before_synchronize = once(fence_twice_and_update)
    snapshot.copy()
    assert copied(snapshot) == {WEIGHT: {1.0}, MOMENT: {1.0}, RUNNING: {0.0}}


@pytest.mark.usefixtures("all_at_once")
def test_nobody_gets_the_memory_of_the_state_or_of_the_copy_before_all_has_arrived() -> None:
    device = FakeDevice()
    trained = Trained.on(device)
    snapshot = trained.snapshot()
    memory = [weakref.ref(held.tensor) for held in trained.state.tensors] + [weakref.ref(trained.buffer.bytes)]
    del trained
    there: list[bool] = []

    def pass_fence_and_look() -> None:
        snapshot.fence(0.0)
        gc.collect()
        there.extend(of() is not None for of in memory)

    device.before_synchronize = once(pass_fence_and_look)
    snapshot.copy()
    assert there == [True] * 4


def test_little_is_on_its_way_at_once() -> None:
    device = FakeDevice()
    snapshot = Trained.on(device).snapshot()
    device.run()
    snapshot.copy()
    assert device.most_copies_open == IN_FLIGHT_BYTES // CHUNK_BYTES + 1
    assert device.copies_open == 0


def test_a_late_copy_is_dropped_when_nothing_reads_the_state_any_more() -> None:
    device = FakeDevice()
    trained = Trained.on(device)
    snapshot = trained.snapshot()
    stands_still = threading.Event()

    def until_nobody_waits() -> None:
        stands_still.set()
        until_s = time.monotonic() + PATIENCE_S
        while snapshot._wanted and time.monotonic() < until_s:
            time.sleep(0.001)

    device.before_synchronize = until_nobody_waits
    copying = threading.Thread(target=snapshot.copy)
    copying.start()
    assert stands_still.wait(PATIENCE_S)
    assert not snapshot.fence(0.01)
    assert "0.01 s later the copy was not whole" in snapshot.reason
    assert (snapshot.over, device.copies_open) == (True, 0)
    copying.join(PATIENCE_S)


def test_memory_of_a_snapshot_that_was_never_copied_is_let_go_of_when_its_buffers_have_arrived() -> None:
    device = FakeDevice()
    snapshot = Trained.on(device).snapshot()
    assert device.copies_open == 1
    assert not snapshot.fence(0.0)
    snapshot.copy()
    assert (snapshot.over, device.copies_open) == (True, 0)


@pytest.mark.usefixtures("all_at_once")
def test_a_device_that_fails_after_the_fence_fails_the_copy() -> None:
    device = FakeDevice()
    trained = Trained.on(device)
    snapshot = trained.snapshot()

    def lost() -> None:
        assert snapshot.fence(0.0)
        raise RuntimeError("device lost")

    device.before_synchronize = lost
    with pytest.raises(RuntimeError, match="device lost"):
        snapshot.copy()
    assert snapshot.reason == "copying failed: device lost"
    assert (snapshot.whole, snapshot.over) == (False, True)


def test_state_of_this_machine_needs_no_device() -> None:
    state = Trained.on(FakeDevice()).state
    assert isinstance(copier_of(state), HostCopier)
    assert cuda_devices(state) == []


def test_tensors_of_the_host_beside_those_of_a_device_are_copied_at_once() -> None:
    """As the counts of steps are that torch's optimizers keep on the host."""
    mixed: FakeCopier = DeviceCopier[FakeEvent]({})
    target = torch.zeros(3)
    mixed.mark_moment()
    with mixed.beside_training():
        mixed.put(target, torch.ones(3))
    mixed.finish()
    mixed.hold_back()
    assert target.tolist() == [1.0, 1.0, 1.0]


class TestPinning:
    def test_a_buffer_is_pinned_once_and_only_where_a_device_copies(self) -> None:
        pinned: list[int] = []
        pool = HostPool(2, pin=lambda memory: pinned.append(memory.numel()))
        plainly = pool.take(100)
        assert plainly is not None
        pool.give_back(plainly)
        assert pinned == []
        for _ in range(2):
            again = pool.take(100, pinned=True)
            assert again is plainly
            assert again.pinned
            pool.give_back(again)
        assert pinned == [100]

    def test_memory_that_cannot_be_pinned_is_an_error_and_is_not_lost(self) -> None:
        def refused(memory: torch.Tensor) -> None:
            raise RuntimeError("cannot pin 100 bytes of host memory: CUDA error 2")

        pool = HostPool(1, pin=refused)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="cannot pin"):
                pool.take(100, pinned=True)
        assert pool.size_bytes == 100
        assert pool.take(50) is not None


class RecordedCuda:
    """``torch.cuda`` that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.streams = ["training"]

    def Stream(self, device: torch.device) -> str:  # noqa: N802
        self.told.append(f"new stream on {device}")
        return "copies"

    def current_stream(self, device: torch.device) -> RecordedStream:
        return RecordedStream(self, f"{self.streams[-1]} of {device}")

    def Event(self, *, blocking: bool) -> RecordedEvent:  # noqa: N802
        assert blocking, "who waits for an event must not keep a processor busy"
        return RecordedEvent(self)

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.told.append(f"device {device}")
        yield

    @contextlib.contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.streams.append(stream)
        yield
        self.streams.pop()


@dataclass
class RecordedStream:
    cuda: RecordedCuda
    name: str

    def wait_event(self, event: RecordedEvent) -> None:
        self.cuda.told.append(f"{self.name} waits for {event.at}")


@dataclass
class RecordedEvent:
    cuda: RecordedCuda
    at: str = ""

    def record(self, stream: RecordedStream) -> None:
        self.at = stream.name
        self.cuda.told.append(f"event on {stream.name}")

    def synchronize(self) -> None:
        self.cuda.told.append(f"waits for {self.at}")


class RecordedTensor:
    """Knows where it is, and how it was copied."""

    def __init__(self, cuda: RecordedCuda, device: torch.device) -> None:
        self.cuda, self.device, self.nbytes = cuda, device, 4

    def copy_(self, source: RecordedTensor, *, non_blocking: bool = False) -> None:
        how = "in the background" if non_blocking else "at once"
        self.cuda.told.append(f"copy from {source.device} {how} on {self.cuda.streams[-1]}")


def test_what_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls, in their order; that CUDA then does what they mean takes a device."""
    cuda = RecordedCuda()
    for name in ("Stream", "current_stream", "Event", "device", "stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    here = torch.device("cuda", 1)
    copies = DeviceCopier({here: CudaDevice(here)})
    target, source = RecordedTensor(cuda, torch.device("cpu")), RecordedTensor(cuda, here)
    copies.put(target, source)  # type: ignore[arg-type]
    copies.mark_moment()
    with copies.beside_training():
        monkeypatch.setattr(RecordedEvent, "query", lambda event: True, raising=False)
        copies.put(target, source)  # type: ignore[arg-type]
        copies.put(target, target)  # type: ignore[arg-type]
    copies.finish()
    copies.hold_back()
    assert cuda.told == [
        "new stream on cuda:1",
        "copy from cuda:1 in the background on training",
        "event on training of cuda:1",
        "device cuda:1",
        "copies of cuda:1 waits for training of cuda:1",
        "copy from cuda:1 in the background on copies",
        "event on copies of cuda:1",
        "copy from cpu at once on copies",
        "device cuda:1",
        "waits for training of cuda:1",
        "event on copies of cuda:1",
        "waits for copies of cuda:1",
        "device cuda:1",
        "event on copies of cuda:1",
        "training of cuda:1 waits for copies of cuda:1",
    ]
