"""What can be registered beside one model and one optimizer.

Without it a second model of a program could be lost with a restart.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from trainctl.checkpoint.layout.key import StateVersion
from trainctl.core.errors import PlanError, PreconditionError
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.program import python_program
from trainctl.parallel.recovery.enter import Entry
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.replica.training_state import TrainingState
from trainctl.parallel.session import Session
from trainctl.parallel.session.program import run_program


class Loader:
    """Something with a position of its own."""

    def __init__(self) -> None:
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def make(seed: int = 0) -> TrainingState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    average = nn.Linear(5, 7).double()
    first = torch.optim.AdamW(model[0].parameters(), lr=0.02)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(first, T_max=20),
        torch.optim.lr_scheduler.StepLR(second, step_size=2, gamma=0.5),
    ]
    return TrainingState(
        model=model,
        optimizers=[first, second],
        modules={"average": average},
        schedulers=schedulers,
        objects={"loader": Loader()},
    )


def loss_of(model: nn.Module, ids: tuple[int, ...]) -> tuple[torch.Tensor, int]:
    rows = torch.stack([torch.randn(5, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in ids])
    return (model(rows) - rows[:, :2]).square().sum(), 2 * len(ids)


def session_of(state: TrainingState, steps: int) -> Session:
    session = Session.open()
    session.register(
        model=state.model,
        optimizer=state.optimizers,
        modules=state.modules,
        schedulers=state.schedulers,
        objects=state.objects,
    )
    session.set_data(num_samples=40, steps=steps, batch=BatchSpec(sequences=8, micro_batches=4), seed=1)
    return session


def test_several_optimizers_and_their_schedulers_do_what_a_plain_loop_does() -> None:
    ours, plain = make(), make()
    session = session_of(ours, steps=6)
    while not session.done:
        with session.step() as step:
            ids: tuple[int, ...] = ()
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(ours.model, micro_batch.sample_ids))
                ids += micro_batch.sample_ids
        if ids:
            for optimizer in plain.optimizers:
                optimizer.zero_grad()
            loss, targets = loss_of(plain.model, ids)
            (loss / targets).backward()  # type: ignore[no-untyped-call]
            for optimizer, scheduler in zip(plain.optimizers, plain.schedulers, strict=True):
                optimizer.step()
                scheduler.step()
    for mine, theirs in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    assert [s.get_last_lr() for s in ours.schedulers] == [s.get_last_lr() for s in plain.schedulers]


def test_everything_registered_is_in_the_state_under_a_name_of_its_own() -> None:
    replica = Replica(make(), instance="island-0")
    state = replica.state(StateVersion(1, 0))
    names = {(t.key.fqn, t.key.kind) for t in state.tensors}
    assert {("0.weight", "param"), ("average.weight", "param"), ("0.weight", "exp_avg")} <= names
    assert ("2.weight", "momentum_buffer") in names
    assert {"loader", "scheduler 0", "scheduler 1"} <= set(state.objects["registered"])


def test_objects_and_hyperparameters_come_back_exactly() -> None:
    source, target = Replica(make(), instance="i"), Replica(make(seed=1), instance="i")
    for replica in (source, target):
        replica.sets_learning_rate = False
    loader: Any = source.training.objects["loader"]
    loader.position = 17
    for _ in range(3):
        for optimizer, scheduler in zip(source.training.optimizers, source.training.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
    source.cursor = 24
    assert target.import_objects(source.export_objects()) == 24
    found: Any = target.training.objects["loader"]
    assert found.position == 17
    lr = [group["lr"] for group in target.training.parameter_groups()]
    assert lr == [group["lr"] for group in source.training.parameter_groups()]
    assert lr != [0.02, 0.1]
    for mine, theirs in zip(target.training.schedulers, source.training.schedulers, strict=True):
        assert mine.state_dict() == theirs.state_dict()


def test_a_state_that_is_not_json_is_refused_with_its_name() -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"mean": torch.zeros(3)}

        def load_state_dict(self, state: Any) -> None: ...

    state = make()
    session = Session.open()
    with pytest.raises(PlanError, match=r"'statistics'.*Tensor") as caught:
        session.register(model=state.model, optimizer=state.optimizers, objects={"statistics": Odd()})
    assert "module" in caught.value.hint


def test_objects_of_another_program_are_refused() -> None:
    source, target = Replica(make(), instance="i"), Replica(make(), instance="i")
    exported = source.export_objects()
    exported["registered"]["sampler"] = exported["registered"].pop("loader")
    with pytest.raises(PlanError, match=r"loader.*found.*sampler"):
        target.import_objects(exported)


def test_a_worker_takes_milestones_over_as_they_are() -> None:
    def built() -> TrainingState:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        return TrainingState(model=model, optimizers=[optimizer], schedulers=[MultiStepLR(optimizer, [2, 5])])

    source, target = Replica(built(), instance="i"), Replica(built(), instance="i")
    scheduler: Any = target.training.schedulers[0]
    scheduler.milestones = Counter()
    record = SimpleNamespace(holders=(0,), lineage=1, target_step=0)
    holder: Any = SimpleNamespace(replica=source, rank=0, record=record, recent=tuple)
    joiner: Any = SimpleNamespace(replica=target, rank=1, record=record)
    Entry._adopt(joiner, json.loads(json.dumps(Entry._shared(holder))))
    assert scheduler.milestones == Counter([2, 5])
    assert sorted(scheduler.milestones.elements()) == [2, 5]


def test_a_checkpoint_that_no_job_saved_is_refused() -> None:
    replica = Replica(make(), instance="i")
    with pytest.raises(PlanError, match="found one that does not say where in the data it was"):
        replica.import_objects({"registered": {}, "optimizers": []})


def test_processes_that_somebody_else_started_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(PreconditionError, match="WORLD_SIZE=4") as caught:
        Session.open()
    assert "launch.mode: session" in caught.value.hint


@pytest.mark.parametrize(
    ("command", "script", "module", "arguments"),
    [
        (["python", "train.py", "--lr", "1"], "train.py", "", ("--lr", "1")),
        (["/usr/bin/python3.11", "-u", "-m", "pkg.train", "x"], "", "pkg.train", ("x",)),
    ],
)
def test_python_programs(command: list[str], script: str, module: str, arguments: tuple[str, ...]) -> None:
    program = python_program(command)
    assert program is not None
    assert (program.script, program.module, program.arguments) == (script, module, arguments)


@pytest.mark.parametrize("command", [[], ["bash", "x.sh"], ["python"], ["python", "-c", "pass"], ["python", "-m"]])
def test_what_is_no_python_program(command: list[str]) -> None:
    assert python_program(command) is None


def test_a_script_runs_as_python_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.setattr("sys.path", [*sys.path])
    here = os.getcwd()
    (tmp_path / "helper.py").write_text("VALUE = 7\n")
    (tmp_path / "main.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom helper import VALUE\nassert __name__ == '__main__'\n"
        "Path('out').write_text(f'{VALUE} {sys.argv[1:]}')\n"
    )
    try:
        run_program(["python", "main.py", "a", "b"], str(tmp_path))
    finally:
        os.chdir(here)
    assert (tmp_path / "out").read_text() == "7 ['a', 'b']"
