"""Tasks and optimizers through the real worker: on one and two workers, through a kill, out of a checkpoint.

Without it a task could work in one process and differ or fail in a worker.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from multiproc.armed_faults import fault
from multiproc.builtin import run_worker
from multiproc.task_runs import KILL, OWN, STEPS, run, same, tensors
from multiproc.threads import WorldError
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import JobSpec
from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, OptimizerSpec, TrainDataSpec, TrainSpec
from unit.tasks.hf_folders import load, write_model

pytestmark = pytest.mark.multiproc

EARLY_KILL = fault("vote.before", slot=1, step=1)


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerSpec(name="sgd", lr=0.05, options={"momentum": 0.9, "dampening": 0.5}),
        OptimizerSpec(name="adagrad", lr=0.05),
        OptimizerSpec(name=f"{OWN}:Signs", lr=0.05),
    ],
    ids=lambda o: str(o.name.rpartition(":")[2]),
)
def test_own_task_and_other_optimizers_lose_a_worker_and_change_no_bit(
    optimizer: OptimizerSpec, tmp_path: Path
) -> None:
    train = TrainSpec(
        task=f"{OWN}:build", optimizer=optimizer, steps=STEPS, batch=BatchSpec(sequences=12, micro_batches=4)
    )
    losses, ref = run(tmp_path / "a", train)
    for index, killed in enumerate((EARLY_KILL, KILL)):  # before and after the optimizer made its state
        again, ref_again = run(tmp_path / f"b{index}", train, killed)
        assert again == losses
        assert same(tensors(ref, tmp_path / f"ea{index}"), tensors(ref_again, tmp_path / f"eb{index}"))
    assert len(set(losses)) == STEPS
    assert (tmp_path / "ea0" / "width.txt").read_bytes() == b"6"


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_a_model_of_transformers_on_one_and_two_workers_and_through_a_kill(kind: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for index in range(4):
        (tmp_path / "corpus" / f"{index}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 30)
    write_model(tmp_path / "model", kind)
    train = TrainSpec(
        task="hf_causal_lm",
        model=ModelSpec(
            path=str(tmp_path / "model"), context=16, overrides={} if kind != "gpt2" else {"resid_pdrop": 0.1}
        ),
        data=TrainDataSpec(uri=str(tmp_path / "corpus"), hold_out_every=4),
        steps=4,
        batch=BatchSpec(sequences=8, micro_batches=4),
        eval=EvalSpec(every=2, sequences=4),
    )
    one, _ = run(tmp_path / "one", train, size=1)
    two, ref = run(tmp_path / "two", train)
    assert two == pytest.approx(one, rel=1e-5), "dropout included: it follows the micro-batch, not the worker"
    killed, ref_killed = run(tmp_path / "killed", train, {**KILL, "where": {"slot": 0, "step": 3}})
    assert killed == two
    assert same(tensors(ref, tmp_path / "e"), tensors(ref_killed, tmp_path / "ek"))
    load(tmp_path / "e")


def test_what_an_own_task_raises_reaches_the_report_with_its_lines(tmp_path: Path) -> None:
    train = TrainSpec(task="multiproc.raising:build")
    with (
        ProcessWorld(tmp_path, 1, run_worker, spec=JobSpec(train=train)) as w,
        pytest.raises(WorldError, match="worker 0 raised KeyError"),
    ):
        w.run()
    error = w.lives[0].error
    assert error is not None
    assert error.code == "USER_EXCEPTION"
    assert 'context.options["missing"]' in error.traceback
