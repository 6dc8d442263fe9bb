"""Saves beside the training, in one process: what is saved, who waits for whom, and how failures come back.

Without it a save could hold training up, or fail unnoticed.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.kept.catalog import newest, survey
from trainctl.checkpoint.kept.origin import LIBRARY
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Flat
from trainctl.checkpoint.library import Checkpointer, load, load_state, save
from trainctl.checkpoint.library.group_save import GroupSave
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.snapshot.copier import HostCopier
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError, UsageError
from unit.checkpoint.library_training import built, same, train
from waiting import PATIENCE_S, until


class Gate:
    """Holds back what is written into data files until it is opened; or lets it fail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.refuses = 0
        self.error = OSError(errno.ENOSPC, "no space left on device")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate()
    real = LocalStorage.write_file

    def write_file(storage: LocalStorage, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        if "/data/" in path:
            found.reached.set()
            assert found.open.wait(PATIENCE_S)
            if found.refuses:
                found.refuses -= 1
                raise found.error
        return real(storage, path, buffers)

    monkeypatch.setattr(LocalStorage, "write_file", write_file)
    yield found
    found.open.set()


def test_a_copy_that_is_late_is_dropped_and_the_next_save_is_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, go_on = threading.Event(), threading.Event()
    real = HostCopier.put

    def put(copier: HostCopier, target: torch.Tensor, source: torch.Tensor) -> None:
        if threading.current_thread() is not threading.main_thread():
            copying.set()
            assert go_on.wait(PATIENCE_S)
        real(copier, target, source)

    def go_on_when_nobody_waits(snapshot: Snapshot) -> None:
        until(lambda: not snapshot._wanted)
        go_on.set()

    def waits_no_more(snapshot: Snapshot, within_s: float) -> bool:
        if not go_on.is_set():
            assert copying.wait(PATIENCE_S)
            threading.Thread(target=go_on_when_nobody_waits, args=(snapshot,)).start()
        return fence(snapshot, within_s)

    fence = Snapshot.fence
    monkeypatch.setattr(HostCopier, "put", put)
    monkeypatch.setattr(Snapshot, "fence", waits_no_more)
    model, optimizer = built()
    train(model, optimizer, 1)
    with Checkpointer(str(tmp_path), fence_s=0.01) as checkpointer:
        late = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        train(model, optimizer, 1)
        with pytest.raises(CheckpointError, match=r"0\.01 s later the copy was not whole"):
            late.result()
        assert newest(str(tmp_path), job=LIBRARY) is None
        good = checkpointer.async_save(model=model, optimizers=[optimizer], step=2, lazy=False)
        assert good.result().step == 2


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("lazy", [True, False])
def test_what_is_saved_is_the_state_at_the_call_whatever_training_does(tmp_path: Path, before: int, lazy: bool) -> None:
    model, optimizer = built()
    train(model, optimizer, before)
    save(str(tmp_path / "at once"), model=model, optimizers=[optimizer], step=before, objects={"seen": [1]})
    objects = {"seen": [1]}
    with Checkpointer(str(tmp_path / "beside")) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=before, objects=objects, lazy=lazy)
        assert (len(optimizer.state) > 0) == (before > 0), "an optimizer that has not stepped is left alone"
        objects["seen"].append(2)
        train(model, optimizer, 3)
        ref = pending.result()
        assert pending.done()
        assert ref == newest(str(tmp_path / "beside"), job=LIBRARY)
    found = []
    for name in ("at once", "beside"):
        other, its_optimizer = built(seed=1)
        loaded = load(str(tmp_path / name), model=other, optimizers=[its_optimizer])
        assert (loaded.step, loaded.objects) == (before, {"seen": [1]})
        train(other, its_optimizer, 2)
        found.append(other)
    assert same(*found)


def test_the_step_of_an_optimizer_waits_for_the_copy_and_for_nothing_else(tmp_path: Path, gate: Gate) -> None:
    model, optimizer = built()
    train(model, optimizer, 1)
    with Checkpointer(str(tmp_path)) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        train(model, optimizer, 4)
        assert gate.reached.wait(PATIENCE_S)
        assert not pending.done()
        assert not pending.wait(0.0)
        with pytest.raises(TimeoutError, match="step 1 is not complete yet"):
            pending.result(0.0)
        gate.open.set()
        assert pending.result().step == 1
    hooks = optimizer._optimizer_step_pre_hooks
    assert not hooks, "a closed one lets go of the optimizers"


def test_what_to_do_about_a_refused_root_manifest_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(save: GroupSave, parts: object) -> None:
        raise CheckpointError("no room for the root manifest", hint="make room in the bucket")

    monkeypatch.setattr(GroupSave, "_sealed", refused)
    model, optimizer = built()
    with Checkpointer(str(tmp_path)) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        with pytest.raises(CheckpointError, match=r"no room for the root manifest \(make room in the bucket\)"):
            pending.result()


def test_one_more_waits_for_the_one_before(tmp_path: Path, gate: Gate) -> None:
    model, optimizer = built()
    begun = threading.Event()
    with Checkpointer(str(tmp_path)) as checkpointer:
        first = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)

        def second() -> None:
            checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
            begun.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert gate.reached.wait(PATIENCE_S)
        assert not begun.wait(0.2)
        gate.open.set()
        thread.join(PATIENCE_S)
        assert begun.is_set()
        assert first.done()
        ref = checkpointer.wait()
        assert ref is not None
        assert ref.step == 2
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [2, 1]


def test_two_may_be_in_flight_and_are_completed_in_order(tmp_path: Path, gate: Gate) -> None:
    model, optimizer = built()
    with Checkpointer(str(tmp_path), in_flight=2, keep=1) as checkpointer:
        first = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        train(model, optimizer, 1)
        second = checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
        train(model, optimizer, 1)
        assert not first.done()
        assert not second.done()
        gate.open.set()
        assert (second.result().step, first.done()) == (2, True)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [2], "keep=1"


def test_one_that_is_kept_alone_is_read_back_before_the_one_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = built()
    with Checkpointer(str(tmp_path), keep=1) as checkpointer:
        first = checkpointer.async_save(model=model, optimizers=[optimizer], step=1).result()
        real = LocalStorage.write_file

        def other_bits(storage: LocalStorage, path: str, buffers: Iterable[memoryview | bytes]) -> int:
            whole = bytearray().join(buffers)
            whole[-1] ^= 1 if "/data/" in path else 0
            return real(storage, path, [bytes(whole)])

        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "write_file", other_bits)
            second = checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
            with pytest.raises(CheckpointError, match="do not have their checksum"):
                second.result()
        assert newest(str(tmp_path)) == first, "the bytes of the other one are wrong"
        third = checkpointer.async_save(model=model, optimizers=[optimizer], step=3).result()
    found = survey(str(tmp_path))
    assert [info.ref for info in (*found.checkpoints, *found.damaged)] == [third]


def test_a_failure_is_raised_by_the_handle_once_and_the_next_save_is_a_new_one(tmp_path: Path, gate: Gate) -> None:
    gate.open.set()
    gate.refuses = 1
    model, optimizer = built()
    with Checkpointer(str(tmp_path), retry_after_s=()) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        with pytest.raises(CheckpointError, match=r"(?s)saving step 1 .* failed:\nrank 0: .*no space left") as caught:
            pending.result()
        assert caught.value.hint
        assert newest(str(tmp_path), job=LIBRARY) is None
        assert not list(tmp_path.glob("*/*/data/*")), "what failed leaves nothing"
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=2).result().step == 2


def test_a_failure_that_nobody_asked_about_is_raised_by_the_next_save(tmp_path: Path, gate: Gate) -> None:
    gate.open.set()
    gate.refuses = 1
    model, optimizer = built()
    checkpointer = Checkpointer(str(tmp_path), retry_after_s=())
    checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
    with pytest.raises(CheckpointError, match="no space left"):
        checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
    assert checkpointer.async_save(model=model, optimizers=[optimizer], step=3).result().step == 3
    gate.refuses = 1
    checkpointer.async_save(model=model, optimizers=[optimizer], step=4)
    with pytest.raises(CheckpointError, match="saving step 4"):
        checkpointer.close()
    checkpointer.close()
    with pytest.raises(UsageError, match="was closed"):
        checkpointer.async_save(model=model, optimizers=[optimizer], step=5)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [3]


def test_a_failure_that_a_faster_rank_told_of_is_not_told_again(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.refuses = 1
    values = torch.arange(20.0)
    with Checkpointer(str(tmp_path), in_flight=2, retry_after_s=()) as checkpointer:
        first = checkpointer.async_save_state(flat(values), step=1)
        assert gate.reached.wait(PATIENCE_S)
        with monkeypatch.context() as patched:

            def gather(own: dict[str, Any], what: str = "") -> list[dict[str, Any]]:
                assert own["failed"] == {}, "here it is not over yet"
                return [own, {**own, "failed": {first.attempt: "no space left"}}]

            patched.setattr(checkpointer._ranks, "gather", gather)
            with pytest.raises(CheckpointError, match="rank 1: no space left"):
                checkpointer.async_save_state(flat(values), step=2)
        gate.open.set()
        assert first.wait(PATIENCE_S)
        assert "no space left" in first.failure
        assert checkpointer.async_save_state(flat(values), step=3).result().step == 3


@pytest.mark.parametrize("fails", [1, 2])
def test_a_write_that_fails_is_tried_again(tmp_path: Path, gate: Gate, fails: int) -> None:
    gate.open.set()
    gate.refuses, gate.error = fails, OSError(errno.EIO, "a cable")
    model, optimizer = built()
    train(model, optimizer, 1)
    with Checkpointer(str(tmp_path), retry_after_s=(0.0, 0.0)) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        assert pending.result().step == 1
    assert gate.refuses == 0
    other, its_optimizer = built(seed=1)
    load(str(tmp_path), model=other, optimizers=[its_optimizer])
    assert same(model, other)


def test_a_write_that_fails_once_more_than_it_is_tried_fails_the_save(tmp_path: Path, gate: Gate) -> None:
    gate.open.set()
    gate.refuses, gate.error = 3, OSError(errno.EIO, "a cable")
    model, _ = built()
    with Checkpointer(str(tmp_path), retry_after_s=(0.0, 0.0)) as checkpointer:
        pending = checkpointer.async_save(model=model, step=1)
        with pytest.raises(CheckpointError, match="a cable"):
            pending.result()
    assert gate.refuses == 0


def test_a_checkpoint_that_cannot_be_completed_is_taken_back(tmp_path: Path, gate: Gate) -> None:
    gate.open.set()
    real, left = LocalStorage.create_file, []
    model, optimizer = built()
    with Checkpointer(str(tmp_path), retry_after_s=(0.0,)) as checkpointer:
        with pytest.MonkeyPatch.context() as patch:

            def once(storage: LocalStorage, path: str, data: bytes) -> None:
                left.append(path)
                if len(left) == 1:
                    raise OSError(errno.EIO, "a cable")
                real(storage, path, data)

            patch.setattr(LocalStorage, "create_file", once)
            pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
            with pytest.raises(CheckpointError, match="a cable"):
                pending.result()
        assert not list(tmp_path.glob("*/*"))
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=2).result().step == 2


def flat(values: torch.Tensor) -> LocalState:
    key = StateKey("w", "exp_avg", "F32", "island-0", StateVersion(0, 0))
    return LocalState((StateTensor(key, (4, 5), Flat(0, 20), values),))


def test_flat_state_is_copied_at_once_unless_fences_are_promised(tmp_path: Path, gate: Gate) -> None:
    values = torch.arange(20.0)
    with Checkpointer(str(tmp_path)) as checkpointer:
        pending = checkpointer.async_save_state(flat(values), step=1)
        values.add_(1)
        gate.open.set()
        pending.result()
        into = torch.zeros(20)
        load_state(str(tmp_path), flat(into))
        assert torch.equal(into, torch.arange(20.0))
        later = checkpointer.async_save_state(flat(values), step=2, lazy=True)
        checkpointer.fence()
        values.add_(1)
        later.result()
        load_state(str(tmp_path), flat(into))
        assert torch.equal(into, torch.arange(1.0, 21.0))


def test_a_change_without_a_fence_is_found_out_and_never_saved(tmp_path: Path) -> None:
    values = torch.arange(20.0)
    with Checkpointer(str(tmp_path), retry_after_s=()) as checkpointer:
        pending = checkpointer.async_save_state(flat(values), step=1, lazy=True)
        values.add_(1)
        with pytest.raises(CheckpointError, match="was changed before the snapshot's fence was passed"):
            pending.result()
    assert newest(str(tmp_path), job=LIBRARY) is None


@pytest.mark.parametrize("on_device", [True, False])
def test_memory_for_copies_of_state_on_a_device_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_device: bool
) -> None:
    pinned: list[int] = []
    pool = partial(HostPool, pin=lambda memory: pinned.append(memory.numel()))
    monkeypatch.setattr("trainctl.checkpoint.library.checkpointer.HostPool", pool)
    devices = [torch.device("cuda")] if on_device else []
    monkeypatch.setattr("trainctl.checkpoint.library.pending.cuda_devices", lambda state: devices)
    with Checkpointer(str(tmp_path)) as checkpointer:
        for step in (1, 2):
            checkpointer.async_save_state(flat(torch.arange(20.0)), step=step).result()
    assert len(pinned) == on_device, "once, however often it is used"


def test_without_memory_for_a_copy_the_save_fails_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(size_bytes: int) -> torch.Tensor:
        raise MemoryError("not a byte")

    monkeypatch.setattr("trainctl.checkpoint.library.checkpointer.HostPool", lambda count: HostPool(count, none))
    model, optimizer = built()
    with Checkpointer(str(tmp_path)) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        train(model, optimizer, 1)
        with pytest.raises(CheckpointError, match="no copy of the state could be made: not a byte"):
            pending.result()


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_is_left_with_its_own_error(tmp_path: Path, end: type[BaseException]) -> None:
    model, optimizer = built()

    def block() -> None:
        with Checkpointer(str(tmp_path)) as checkpointer:
            checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
            raise end

    with pytest.raises(end):
        block()
    assert not optimizer._optimizer_step_pre_hooks


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in_flight: expected 1 or more, found 0"):
        Checkpointer(str(tmp_path), in_flight=0)
