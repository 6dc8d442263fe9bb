"""Without it the example of a task of one's own could be broken, and mistakes in it be told without their line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.controller.domain.spec import parse_job
from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.loop import CPU, prepare
from unit.tasks.alone import train_alone

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "own_task"
GOOD = """
import torch
from trainctl.parallel.tasks.task import TaskParts

class Data:
    num_samples = 40
    def batch(self, sample_ids):
        return torch.tensor([[float(i)] for i in sample_ids]) / 40

def parts(context, **changes):
    model = torch.nn.Linear(1, 1)
    def loss(batch):
        return (model(batch) - 1).square().sum(), len(batch)
    return TaskParts(**{"model": model, "dataset": Data(), "loss": loss, **changes})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes a module of the user's own into a folder of ``PYTHONPATH``; returns the spec that names it."""
    folder = tmp_path / "src"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    before, path = set(sys.modules), list(sys.path)

    def write(body: str, **changes: Any) -> TrainSpec:
        (folder / f"own_{tmp_path.name}.py").write_text(GOOD + body)
        return replace(TrainSpec(task=f"own_{tmp_path.name}:build", steps=4), **changes)

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def problems(spec: TrainSpec, tmp_path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    assert {p.path for p in caught.value.problems} == {"spec.train.task"}
    return [p.message for p in caught.value.problems]


def test_the_example_of_the_docs_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = parse_job((EXAMPLE / "job.yaml").read_text(), source="job.yaml").spec.train
    run = train_alone(spec, tmp_path, interval=30)
    assert run.losses[-1] < run.losses[0] / 3
    evaluated = [f.eval_loss for f in run.figures if f.eval_loss is not None]
    assert len(evaluated) == 2
    assert evaluated[1] < evaluated[0]
    resumed = train_alone(spec, tmp_path / "again", resume=run.saved[0])
    assert resumed.losses == run.losses[30:]
    del sys.modules["ratings"]


def test_what_the_context_says(module: Any, tmp_path: Path) -> None:
    spec = module(
        """
SEEN = []
def build(context):
    SEEN.append((context.seed, context.device, context.dtype, context.bfloat16, context.options, torch.rand(())))
    assert context.cache_dir.name == "cache"
    return parts(context)
"""
    )
    for seed, precision in ((1, "auto"), (1, "float64"), (2, "float32")):
        changed = replace(spec, seed=seed, precision=precision, options={"a": [1, 2.5]})
        torch.rand(3)
        prepare(changed, str(tmp_path / "cache"), CPU)
    seen = sys.modules[spec.task.partition(":")[0]].SEEN
    assert [row[:5] for row in seen] == [
        (1, CPU, torch.float32, False, {"a": [1, 2.5]}),
        (1, CPU, torch.float64, False, {"a": [1, 2.5]}),
        (2, CPU, torch.float32, False, {"a": [1, 2.5]}),
    ]
    assert seen[0][5] == seen[1][5] != seen[2][5], "weights made without a thought are the same on all workers"


def test_optimizer_evaluation_and_artifacts_of_its_own(module: Any, tmp_path: Path) -> None:
    spec = module(
        """
class Evaluation:
    num_items = 3
    def __call__(self, item):
        return 10.0 * item, 1

def build(context):
    made = parts(context)
    optimizer = torch.optim.SGD(made.model.parameters(), momentum=0.5)
    return parts(context, model=made.model, loss=made.loss, optimizer=optimizer, evaluation=Evaluation(),
                 artifacts={"notes.txt": b"mine"}, data_digest="d")
"""
    )
    run = train_alone(replace(spec, eval=replace(spec.eval, every=2)), tmp_path)
    assert type(run.prepared.optimizer).__name__ == "SGD"
    assert run.figures[1].eval_loss == 10.0
    notes = [path.read_bytes() for path in (tmp_path / "checkpoints").rglob("notes.txt")]
    assert notes == [b"mine"]


def test_the_built_in_data_may_be_used(module: Any, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for index in range(4):
        (tmp_path / "corpus" / f"{index}.txt").write_text("abcdefgh" * 200)
    spec = module(
        """
def build(context):
    text = context.text()
    model = torch.nn.Embedding(text.vocab_size, text.vocab_size)
    def loss(batch):
        logits = model(batch.ids.to(context.device))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"), \
            batch.num_targets
    return TaskParts(model=model, dataset=text.train, eval_dataset=text.held_out, loss=loss,
                     artifacts=text.artifacts, data_digest=text.digest)
"""
    )
    data = replace(spec.data, uri=str(tmp_path / "corpus"), hold_out_every=4)
    run = train_alone(replace(spec, data=data, model=replace(spec.model, context=16)), tmp_path)
    assert run.losses[-1] < run.losses[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "has no 'build'"),
        ("build = 3", "expected a class or function, found int"),
        ("def build(): return None", "to take one argument, the TaskContext: too many positional arguments"),
        ("def build(context, more): return None", "missing a required argument: 'more'"),
        ("def build(context): return None", "to return trainctl.parallel.tasks.task.TaskParts, found None"),
        ("def build(context): return {}", "found dict"),
    ],
)
def test_what_cannot_be_called(body: str, message: str, module: Any, tmp_path: Path) -> None:
    (found,) = problems(module(body), tmp_path)
    assert message in found


def test_a_module_that_is_not_there(module: Any, tmp_path: Path) -> None:
    spec = replace(module("def build(context): return parts(context)"), task="not_there.at_all:build")
    (found,) = problems(spec, tmp_path)
    assert "module not_there was not found" in found
    assert "spec.env.PYTHONPATH" in found


def test_all_wrong_fields_at_once(module: Any, tmp_path: Path) -> None:
    found = problems(
        module(
            """
def build(context):
    return parts(context, model=3, dataset=[1], loss=None, eval_dataset=Data, optimizer="adam", evaluation=len,
                 artifacts={"a": "text"}, data_digest=4)
"""
        ),
        tmp_path,
    )
    assert [text.partition("TaskParts with ")[2].partition(":")[0] for text in found] == [
        "model", "dataset", "dataset", "loss", "evaluation", "optimizer", "artifacts", "data_digest",
    ]  # fmt: skip
    assert "dataset: expected num_samples of at least 1, found list with num_samples None" in found[1]


def test_a_model_without_parameters(module: Any, tmp_path: Path) -> None:
    (found,) = problems(module("def build(context): return parts(context, model=torch.nn.ReLU())"), tmp_path)
    assert "found none that require gradients" in found


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("loss", "found Tensor"),
        ("(loss.expand(2), 2)", "found Tensor of shape [2] as the loss; sum it over all targets"),
        ("(loss.detach(), 2)", "found a loss without a graph"),
        ("(loss, 2.0)", "found float as the number of targets"),
        ("(1.0, 2)", "found float as the loss"),
    ],
)
def test_what_a_loss_may_not_return(result: str, message: str, module: Any, tmp_path: Path) -> None:
    spec = module(
        f"""
def build(context):
    made = parts(context)
    def own(batch):
        loss, targets = made.loss(batch)
        return {result}
    return parts(context, model=made.model, loss=own)
"""
    )
    with pytest.raises(SpecError, match="to return \\(summed loss, number of targets\\)") as caught:
        train_alone(spec, tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("where", ["import", "build", "missing import"])
def test_what_it_raises_itself_comes_with_its_lines(where: str, module: Any, tmp_path: Path) -> None:
    line = {"import": "1 / 0", "missing import": "import not_installed_at_all", "build": ""}[where]
    spec = module(f"def build(context):\n    1 / 0\n{line}\n")
    expected = SpecError if where == "missing import" else ZeroDivisionError
    with pytest.raises(expected) as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    lines = traceback.format_exception(caught.value)
    assert any(os.path.join("src", "own_") in text for text in lines)
    if where == "missing import":
        assert "module not_installed_at_all was not found, which own_" in str(caught.value)
