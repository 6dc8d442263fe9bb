"""Without it a job could come to other losses on another number of workers, and nobody could resize one."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from multiproc.builtin import run_worker
from multiproc.toy import final_states, train
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec, ResourcesSpec
from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, TrainDataSpec, TrainSpec

pytestmark = pytest.mark.multiproc
SPEC = JobSpec(checkpoint=CheckpointSpec(interval_steps=0))


def losses(folder: Path, size: int, dtype: str) -> list[float]:
    folder.mkdir()
    options = {"steps": 100, "dtype": dtype, "evaluate_every": 25, "seed": 3}
    with ProcessWorld(folder, size, train, options=options, spec=SPEC) as w:
        w.run()
        assert len(final_states(folder, size)) == 1
        assert [f.step for f in w.figure_log] == list(range(1, 101))
        evaluated = [f.eval_loss for f in w.figure_log if f.eval_loss is not None]
        assert len(evaluated) == 4
        return [f.loss for f in w.figure_log] + evaluated


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_losses_do_not_depend_on_the_number_of_workers(tmp_path: Path, dtype: str, tolerance: float) -> None:
    alone = losses(tmp_path / "1", 1, dtype)
    assert alone[99] < alone[0]
    for size in (2, 3, 4):
        together = losses(tmp_path / str(size), size, dtype)
        assert max(abs(a - b) / abs(a) for a, b in zip(alone, together, strict=True)) <= tolerance


def llama_losses(folder: Path, size: int, train_spec: TrainSpec) -> list[float]:
    folder.mkdir()
    resources = ResourcesSpec(threads_per_worker=1)
    spec = JobSpec(train=train_spec, resources=resources, checkpoint=CheckpointSpec(interval_steps=0))
    with ProcessWorld(folder, size, run_worker, spec=spec) as w:
        w.run()
        assert [f.step for f in w.figure_log] == list(range(1, 101))
        evaluated = [f.eval_loss for f in w.figure_log if f.eval_loss is not None]
        assert len(evaluated) == 2
        return [f.loss for f in w.figure_log] + evaluated


def test_losses_of_the_built_in_llama_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    chance = random.Random(4)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 7))) for _ in range(30)]
    for index in range(5):
        (tmp_path / "corpus" / f"{index}.txt").write_text(" ".join(chance.choices(words, k=800)))
    train_spec = TrainSpec(
        model=ModelSpec(layers=2, hidden=32, heads=4, context=16),
        data=TrainDataSpec(uri=str(tmp_path / "corpus"), hold_out_every=5),
        steps=100,
        batch=BatchSpec(sequences=12, micro_batches=4),
        precision="float32",
        eval=EvalSpec(every=50, sequences=8),
    )
    alone = llama_losses(tmp_path / "1", 1, train_spec)
    assert alone[99] < alone[0] - 0.5, "it learns"
    for size in (2, 3, 4):
        together = llama_losses(tmp_path / str(size), size, train_spec)
        assert max(abs(a - b) / abs(a) for a, b in zip(alone, together, strict=True)) <= 1e-5
