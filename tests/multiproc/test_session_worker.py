"""Without it the process that agents start could fail to train a job file, or die without saying why."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiproc.builtin import run_worker
from multiproc.threads import WorldError
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import JobSpec, ResourcesSpec
from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, TrainDataSpec, TrainSpec
from trainctl.parallel import worker

pytestmark = pytest.mark.multiproc


def spec(corpus: Path) -> JobSpec:
    train = TrainSpec(
        model=ModelSpec(layers=1, hidden=32, heads=2, context=16),
        data=TrainDataSpec(uri=str(corpus), hold_out_every=3),
        steps=6,
        batch=BatchSpec(sequences=4, micro_batches=2),
        eval=EvalSpec(every=3, sequences=2),
    )
    return JobSpec(train=train)


def test_the_built_in_task_trains_and_saves(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index in range(6):
        (corpus / f"{index}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    with ProcessWorld(tmp_path, 2, run_worker, spec=spec(corpus)) as w:
        w.run()
        assert [f.step for f in w.figure_log] == [1, 2, 3, 4, 5, 6]
        assert w.figure_log[-1].loss < w.figure_log[0].loss
        assert w.figure_log[2].eval_loss is not None
        (checkpoint,) = w.checkpoints
        assert checkpoint.ref is not None


def test_missing_data_is_reported_with_its_code(tmp_path: Path) -> None:
    with (
        ProcessWorld(tmp_path, 1, run_worker, spec=spec(tmp_path / "nothing")) as w,
        pytest.raises(WorldError, match="worker 0 raised DataError"),
    ):
        w.run()
    error = w.lives[0].error
    assert error is not None
    assert error.code == "DATA_UNUSABLE"
    assert "nothing" in error.message
    assert error.traceback == "", "what went wrong is no surprise: where in the code says nothing to a person"


def test_threads_are_told_or_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(worker.THREADS_VARIABLE, raising=False)
    assert worker.threads(ResourcesSpec(threads_per_worker=3)) == 3
    assert worker.threads(ResourcesSpec(workers_per_node=1000)) == 1
    monkeypatch.setenv(worker.THREADS_VARIABLE, "5")
    assert worker.threads(ResourcesSpec()) == 5


def test_long_tracebacks_keep_their_end() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise ValueError("x" * 10_000 + "END")

    with pytest.raises(ValueError, match="END") as caught:
        deep(5)
    error = worker.describe(caught.value, step=3)
    assert len(error.traceback.encode()) <= 8192
    assert error.traceback.rstrip().endswith("END")
    assert (error.code, error.type, error.step) == ("USER_EXCEPTION", "ValueError", 3)
