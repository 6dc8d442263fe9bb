"""What the library refuses before anything is written or changed, and what a scheduler finds again.

Without it misuse could overwrite a good checkpoint.
"""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import lr_scheduler

from trainctl.checkpoint.engine import CheckpointWriter, assign
from trainctl.checkpoint.kept.catalog import newest, survey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library import Checkpointer, load, save
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, PlanError, TrainctlError, UsageError
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state
from unit.checkpoint.ranks import save as save_ranks

Scheduler = lr_scheduler.LRScheduler
SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Scheduler]] = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, 20),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.5),
}


def model_of(value: float) -> nn.Module:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def untouched(model: nn.Module, value: float) -> bool:
    return all(bool((parameter == value).all()) for parameter in model.parameters())


def stepped(optimizer: torch.optim.Optimizer, scheduler: Scheduler, steps: int) -> list[Any]:
    found = []
    for _ in range(steps):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        group = optimizer.param_groups[0]
        found.append((float(group["lr"]), group["betas"]))
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_a_scheduler_goes_on_from_the_rate_that_it_had(tmp_path: Path, name: str, tensor: bool) -> None:
    def begun() -> tuple[nn.Module, torch.optim.Optimizer, Scheduler]:
        model = model_of(0.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1.0) if tensor else 1.0)
        return model, optimizer, SCHEDULERS[name](optimizer)

    model, optimizer, scheduler = begun()
    stepped(optimizer, scheduler, 5)
    known = ("last_epoch", "_step_count", "base_lrs")
    objects = {key: value for key, value in scheduler.state_dict().items() if key in known}
    objects["base_lrs"] = [float(rate) for rate in objects["base_lrs"]]
    save(tmp_path, model=model, optimizers=[optimizer], step=5, objects=objects)
    expected = stepped(optimizer, scheduler, 3)
    model, optimizer, scheduler = begun()
    scheduler.load_state_dict(dict(load(tmp_path, model=model, optimizers=[optimizer]).objects))
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) == tensor
    assert stepped(optimizer, scheduler, 3) == expected


class Counting(torch.optim.Optimizer):
    """Keeps state in its parameter groups, as schedule-free ones do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1, "count": 0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["count"] += 1


def test_what_an_optimizer_keeps_in_its_groups_is_saved(tmp_path: Path) -> None:
    model = model_of(1.0)
    optimizer = Counting(model.parameters())
    for _ in range(5):
        optimizer.step()
    save(tmp_path, model=model, optimizers=[optimizer], step=5)
    other = Counting(model.parameters())
    load(tmp_path, model=model, optimizers=[other])
    assert other.param_groups[0]["count"] == 5


def test_nothing_changes_where_optimizers_differ(tmp_path: Path) -> None:
    model = model_of(1.0)
    weight, bias = model.parameters()
    two = [torch.optim.SGD([weight]), torch.optim.SGD([bias])]
    save(tmp_path / "two", model=model, optimizers=two, step=1)
    groups = torch.optim.SGD([{"params": [weight]}, {"params": [bias]}])
    save(tmp_path / "groups", model=model, optimizers=[groups], step=1)
    other = model_of(0.0)
    with pytest.raises(CheckpointError, match="the state of 1 optimizers, found 2"):
        load(tmp_path / "two", model=other, optimizers=[torch.optim.SGD(other.parameters())])
    with pytest.raises(
        PlanError, match=rf"^{tmp_path}/groups/step-0*1/\w+, optimizer 0: .* in 1 groups, found one of 2 in 2"
    ):
        load(tmp_path / "groups", model=other, optimizers=[torch.optim.SGD(other.parameters())])
    assert untouched(other, 0.0)


@pytest.mark.parametrize("step", [-1, 10**12, 1.5, True])
def test_a_step_that_could_not_be_found_again_is_refused(tmp_path: Path, step: Any) -> None:
    with pytest.raises(UsageError, match=r"step: expected a whole number.*\nkeep: expected how many stay"):
        save(tmp_path, model=model_of(1.0), step=step, keep=-1)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nothing: Any = None
    for uri in ("", nothing):
        with pytest.raises(UsageError, match=f"uri: expected a folder, found {uri!r}"):
            save(uri, model=model_of(1.0), step=1)
        with pytest.raises(UsageError, match=f"uri: expected a checkpoint, or a folder of them, found {uri!r}"):
            load(uri, model=model_of(1.0))
    assert not list(tmp_path.iterdir())


def test_all_that_a_checkpointer_cannot_be_made_with_is_said_at_once() -> None:
    half: Any = 1.5
    with pytest.raises(UsageError) as refused:
        Checkpointer("", keep=-1, layout="x", in_flight=half, fence_s=-1.0)
    found = [line.split(":")[0] for line in str(refused.value).splitlines()]
    assert found == ["uri", "keep", "layout", "in_flight", "fence_s"]


def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    model: Any = model_of(1.0)
    optimizer: Any = torch.optim.SGD(model.parameters())
    with pytest.raises(UsageError, match="expected a list of optimizers, found one SGD"):
        save(tmp_path, model=model, optimizers=optimizer, step=1)
    with pytest.raises(UsageError, match=r"expected a torch.nn.Module, found OrderedDict"):
        load(tmp_path, model=model.state_dict())


def test_a_model_without_values_is_refused(tmp_path: Path) -> None:
    save(tmp_path, model=model_of(1.0), step=1)
    empty = nn.Linear(3, 2, device="meta")
    for what in (lambda: load(tmp_path, model=empty), lambda: save(tmp_path, model=empty, step=2)):
        with pytest.raises(TrainctlError, match="on the meta device"):
            what()


def test_a_root_manifest_of_another_save_is_refused(tmp_path: Path) -> None:
    model = model_of(1.0)
    first, second = (save(tmp_path, model=model, step=step) for step in (1, 2))
    shutil.copytree(first.uri, second.uri, dirs_exist_ok=True)
    assert json.loads((Path(second.uri) / "manifest.json").read_bytes())["step"] == 1
    for uri in (tmp_path, Path(second.uri), Path(second.uri).parent):
        with pytest.raises(CheckpointError, match=r"is another save's: expected that of attempt"):
            load(uri, model=model)
    found = load(tmp_path, model=model, fallback=True)
    assert found.step == 1
    assert "is another save's" in found.passed_over[0]
    with pytest.raises(DamagedCheckpointError):
        load(second.uri, model=model)


class TwoRanks(Ranks):
    """Threads of one process in the place of ranks; each waits for the other, for a while."""

    said: ClassVar[list[Any]] = [None, None]
    both = threading.Barrier(2, timeout=20)

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 2

    def gather(self, value: Any, what: str = "") -> list[Any]:
        self.said[self.rank] = value
        self.both.wait()
        return list(self.said)


def test_nobody_waits_for_a_rank_with_an_error_that_nobody_thought_of() -> None:
    heard: dict[int, CheckpointError] = {}

    def run(rank: int) -> None:
        def work() -> bool:
            if rank:
                raise RuntimeError("no memory left")
            return True

        try:
            TwoRanks(rank).together("loading", work)
        except CheckpointError as error:
            heard[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [str(heard[rank]) for rank in range(2)] == ["loading failed:\nrank 1: RuntimeError: no memory left"] * 2
    assert isinstance(heard[1].__cause__, RuntimeError)


@pytest.mark.parametrize("uri", ["file:/data/first", "file:first", "FILE:/data/first", "file//data/first"])
def test_a_file_url_without_its_slashes_is_no_folder_of_that_name(uri: str) -> None:
    with pytest.raises(TrainctlError, match="expected a path, or a URL such as file:///"):
        load(uri, model=model_of(1.0))


@pytest.mark.parametrize("uri", ["file://data/first", "file://first", "FILE://data/first"])
def test_a_file_url_with_a_machine_is_no_folder_without_its_first_name(uri: str) -> None:
    with pytest.raises(TrainctlError, match=f"expected a path, or a URL such as file:///{uri[7:]}, found"):
        load(uri, model=model_of(1.0))


@pytest.mark.parametrize("optimizers", [None, iter(())])
def test_what_is_no_list_of_optimizers_is_refused(tmp_path: Path, optimizers: Any) -> None:
    """What can be gone through once has no length, which one rank would find out after the others had gone on."""
    with pytest.raises(UsageError, match="optimizers: expected a list of optimizers, found"):
        save(tmp_path, model=model_of(1.0), optimizers=optimizers, step=1)
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(UsageError, match="expected a list of optimizers"):
        checkpointer.async_save(model=model_of(1.0), optimizers=optimizers, step=1)


@pytest.mark.parametrize("nonces", ["abc", "cba", "bca", "acb"])
def test_of_two_saves_of_one_step_the_later_is_the_newest(tmp_path: Path, nonces: str) -> None:
    """Whatever their folders are called: a script that was set back saves some steps again."""
    saved = [
        save_ranks(tmp_path, at_step(full_values(), 1), of=attempt(1, nonce=nonce), parent=None) for nonce in nonces
    ]
    assert newest(str(tmp_path)) == saved[-1]
    assert [info.ref for info in survey(str(tmp_path)).checkpoints] == saved[::-1]


def test_a_save_that_failed_leaves_nothing_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = attempt(10).attempt

    def full(self: CheckpointWriter, *arguments: Any, **named: Any) -> None:
        (tmp_path / "step-000000000010" / name / "data").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CheckpointWriter, "write_part", full)
    monkeypatch.setattr("trainctl.checkpoint.library.group_save.attempt_id", lambda *_: name)
    with pytest.raises(OSError, match="No space left on device"):
        save(tmp_path, model=model_of(1.0), step=10)
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_saved_again_is_loaded_as_it_was_last(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path, model=model_of(float(number)), step=10, objects={"number": number}, keep=1)
        assert load(tmp_path, model=model_of(0.0)).objects == {"number": number}
    assert len(list((tmp_path / "step-000000000010").iterdir())) == 1


def test_a_part_that_went_to_another_folder_is_no_part(tmp_path: Path) -> None:
    """As with a folder of that name on each node's own disk."""

    values = full_values()
    layout = plain(values, 1)
    state = rank_state(values, layout, rank_holder(0))
    here, elsewhere = (CheckpointWriter(str(tmp_path / node), faults=FaultPlan()) for node in ("node-0", "node-1"))
    data = live_data(state, assign(layout)[rank_holder(0)])
    part = elsewhere.write_part(attempt(1), writer=0, data=data, shapes=layout.shapes)
    words = r"(?s)expected the files of all writers in .*node-0, but.*node-0.*w00000-000.safetensors is missing"
    with pytest.raises(CheckpointError, match=words):
        here.seal(attempt(1), state=state, parts=[part], parent=None)
    assert survey(str(tmp_path / "node-0")).checkpoints == ()


def test_a_parameter_with_other_memory_is_saved_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, changed, copy = model_of(1.0), threading.Event(), Snapshot.copy

    def later(snapshot: Snapshot, alive: Callable[[], None] = lambda: None) -> None:
        changed.wait(20)
        copy(snapshot, alive)

    monkeypatch.setattr(Snapshot, "copy", later)
    with Checkpointer(tmp_path) as checkpointer:
        optimizer = torch.optim.SGD(model.parameters())
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        for parameter in model.parameters():
            parameter.data = parameter.data * 2
        changed.set()
        pending.result()
    load(tmp_path, model=model)
    assert untouched(model, 1.0)


@pytest.fixture
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    where = f"file://{tmp_path_factory.mktemp('store') / 'store'}"
    dist.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def double_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)


def load_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})


def double_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        state["exp_avg"].mul_(2)


@pytest.mark.parametrize("change", [double_model, load_model, double_moments])
def test_a_change_of_shards_before_the_fence_is_found_out(
    tmp_path: Path, one_rank: None, change: Callable[[nn.Module, torch.optim.Optimizer], None]
) -> None:
    model = nn.Linear(3, 2)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(model.parameters())

    def train() -> None:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    train()
    with Checkpointer(tmp_path) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        change(model, optimizer)
        with pytest.raises(CheckpointError, match="was changed before the snapshot's fence was passed"):
            pending.result()
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
        train()
        assert pending.result().step == 2, "training is no such change"


def test_a_rank_that_is_gone_is_no_riddle(tmp_path: Path, one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(dist, "all_gather", broken)
    with pytest.raises(CheckpointError, match="rank 0 of 1 cannot reach the others: a rank is gone or silent: pair"):
        save(tmp_path, model=model_of(1.0), step=1)
