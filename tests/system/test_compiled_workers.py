"""Compiled models in workers: through a kill, and on a whole system. They keep their kernels where the node says.

Without it each restart would compile for minutes, or fail after a kill.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.local_system import LocalSystem
from e2e.own_task import ended, own
from multiproc.task_runs import KILL, OWN, STEPS, run, same, tensors
from trainctl.core.records.train_spec import BatchSpec, TrainSpec


@pytest.mark.multiproc
@pytest.mark.timeout(500)
def test_a_compiled_model_loses_a_worker_and_changes_no_bit(tmp_path: Path) -> None:
    train = TrainSpec(task=f"{OWN}:build", compile=True, steps=STEPS, batch=BatchSpec(sequences=12, micro_batches=4))
    losses, ref = run(tmp_path / "a", train)
    again, ref_again = run(tmp_path / "b", train, KILL)
    assert again == losses
    assert same(tensors(ref, tmp_path / "ea"), tensors(ref_again, tmp_path / "eb"))
    assert list((tmp_path / "a" / "cache").rglob("*.so"))


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_a_compiled_model_trains_in_a_forked_worker(tmp_path: Path) -> None:
    system = LocalSystem(tmp_path / "local", agents=2, slots=1)
    system.up()
    try:
        check_compiled_job(system)
    finally:
        system.down()


def check_compiled_job(system: LocalSystem) -> None:
    system.submit(own("compiled", compile=True, eval={"every": 0}, steps=8))
    job = ended(system, "compiled")
    assert job.status.phase == "SUCCEEDED", job.status.message
    assert job.status.islands[0].generation == 1, "nobody took a compiling worker for a stuck one"
    assert len(system.figures("compiled")) == 8
    assert "compiling the model for its first use" in system.cli("logs", "compiled").stdout
    assert list((system.run_dir / "nodes").rglob("inductor/**/*.so")), "kernels lie in the node's own folder"
