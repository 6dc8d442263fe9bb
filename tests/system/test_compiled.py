"""``torch.compile`` with inductor, which on a CPU runs a C++ compiler: ``make test-system`` sees to one.

Without it a compiled model could compute something else, or fail at the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from trainctl.checkpoint.export import export_checkpoint
from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.compiling import compile_model
from trainctl.parallel.tasks.evaluation import Evaluation
from trainctl.parallel.tasks.task import TaskParts
from unit.tasks.alone import train_alone
from unit.tasks.hf_folders import load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own parts, which inductor imports


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors on a busy machine: threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests here: what every kernel includes is compiled once."""
    folder = tmp_path_factory.mktemp("inductor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


@pytest.mark.timeout(400)
def test_a_compiled_run_learns_the_same_and_keeps_its_names(cache: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index in range(4):
        (corpus / f"{index}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    spec = TrainSpec(
        model=ModelSpec(layers=1, hidden=16, heads=2, context=16),
        data=TrainDataSpec(uri=str(corpus), hold_out_every=4),
        steps=4,
        batch=BatchSpec(sequences=4, micro_batches=2),
        eval=EvalSpec(every=0),
    )
    plain = train_alone(spec, tmp_path / "plain")
    compiled = train_alone(replace(spec, compile=True), tmp_path / "compiled")
    assert compiled.prepared.task.model._compiled_call_impl is not None
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)
    assert any(cache.rglob("*.so")), "inductor made kernels, and made them here"
    assert not [path for path in cache.rglob("*") if "fxgraph" in str(path) or "aotautograd" in str(path)]
    assert compiled.state.keys() == plain.state.keys()
    export_checkpoint(compiled.saved[-1].uri, str(tmp_path / "export"))
    exported = load(tmp_path / "export").state_dict()
    assert torch.equal(exported["model.norm.weight"], compiled.state["model.norm.weight"])
    resumed = train_alone(spec, tmp_path / "again", resume=compiled.saved[-1])
    assert resumed.losses == [], "a run without compile takes the state over"


class Rows:
    num_samples = 3

    def batch(self, sample_ids: object) -> torch.Tensor:
        return torch.ones(2, 4)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(x)
        return y


@pytest.mark.timeout(400)
def test_the_trial_run_leaves_no_trace_in_the_state(cache: Path, tmp_path: Path) -> None:
    model = Normed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = TaskParts(model=model, dataset=Rows(), loss=lambda batch: (model(batch + 1).sum(), 2))
    data = Rows()
    evaluation = Evaluation(EvalSpec(sequences=3), model, data, task.loss, item_samples=2)
    compile_model(task, evaluation, samples=2, cache_dir=tmp_path, device=torch.device("cpu"))
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_the_compiler_does_not_take_is_an_error_of_the_job_file(cache: Path, tmp_path: Path) -> None:
    def refuse(batch: object) -> tuple[torch.Tensor, int]:
        raise TorchDynamoException("no such kernel\nand much more")

    task = TaskParts(model=nn.Linear(4, 1), dataset=Rows(), loss=refuse)
    with pytest.raises(SpecError, match=r"compile: torch.compile does not take this model: no such kernel\n"):
        compile_model(task, None, samples=2, cache_dir=tmp_path, device=torch.device("cpu"))


NOT_CALLED = nn.Linear(4, 1)


def test_a_loss_that_goes_round_the_model_is_found(cache: Path, tmp_path: Path) -> None:
    task = TaskParts(model=NOT_CALLED, dataset=Rows(), loss=lambda batch: (NOT_CALLED.forward(batch).sum(), 2))
    with pytest.raises(SpecError, match="found nothing in the model that it can compile"):
        compile_model(task, None, samples=2, cache_dir=tmp_path, device=torch.device("cpu"))


@pytest.mark.timeout(400)
def test_a_model_of_torchs_modules_alone_is_compiled(cache: Path, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    task = TaskParts(model=model, dataset=Rows(), loss=lambda batch: (model(batch).sum(), 2))
    before = len(list(cache.rglob("*.so")))
    compile_model(task, None, samples=2, cache_dir=tmp_path, device=torch.device("cpu"))
    assert len(list(cache.rglob("*.so"))) > before
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
