"""``make test-gpu``: the main path on CUDA devices. Needs one device; the tests of NCCL need two, and fail with fewer.

Without it what works on CPUs could fail on the first machine with devices.

This is the script behind what docs/unverified.md calls unverified: nothing in here is skipped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from e2e.ledger import assert_exact_ledger, assert_same_samples, tensors_of
from e2e.local_system import LocalSystem, tiny_job, workers

pytestmark = pytest.mark.e2e
Local = Callable[..., LocalSystem]
STEPS, SEQUENCES = 60, 24


def job_on(corpus: Path, name: str, *, gpus: int, interval_steps: int = 0, precision: str = "float32") -> str:
    """A job of one node; on CPUs with 0 ``gpus``."""
    text = tiny_job(
        name,
        corpus,
        steps=STEPS,
        nodes=1,
        per_node=max(1, gpus),
        interval_steps=interval_steps,
        precision=precision,
    )
    job: dict[str, Any] = yaml.safe_load(text)
    job["spec"]["resources"]["acceleratorsPerNode"] = gpus
    return yaml.safe_dump(job, sort_keys=False)


def run(system: LocalSystem, corpus: Path, name: str, **job: Any) -> list[Any]:
    """The figures of an undisturbed run."""
    system.submit(job_on(corpus, name, **job))
    system.wait_phase(name, "SUCCEEDED", 120)
    return system.figures(name)


def final_state(system: LocalSystem, name: str) -> dict[str, bytes]:
    return tensors_of(Path(system.job(name).status.checkpoint.uri))


def test_one_device_learns_what_the_cpu_learns(local: Local, corpus: Path) -> None:
    system = local(agents=1, slots=1)
    on_cpu = run(system, corpus, "cpu", gpus=0)
    on_gpu = run(system, corpus, "gpu", gpus=1)
    assert_same_samples(on_gpu, on_cpu)
    assert [f.loss for f in on_gpu[:10]] == pytest.approx([f.loss for f in on_cpu[:10]], rel=1e-4)
    half = run(system, corpus, "bf16", gpus=1, precision="auto")
    assert [f.loss for f in half[:10]] == pytest.approx([f.loss for f in on_cpu[:10]], rel=2e-2)


def test_a_lost_worker_on_one_device_comes_back_from_the_checkpoint(local: Local, corpus: Path) -> None:
    system = local(agents=1, slots=1)
    undisturbed = run(system, corpus, "calm", gpus=1, interval_steps=10)
    system.submit(job_on(corpus, "killed", gpus=1, interval_steps=10))
    os.kill(workers(system.wait_step("killed", 25))[0].pid, signal.SIGKILL)
    system.wait_phase("killed", "SUCCEEDED", 120)
    figures = system.figures("killed")
    assert_exact_ledger(figures, steps=STEPS, sequences=SEQUENCES)
    assert_same_samples(figures, undisturbed)


def test_nccl_a_lost_worker_copies_its_state_from_its_peer(local: Local, corpus: Path) -> None:
    assert torch.cuda.device_count() >= 2, "NCCL gives each rank a device of its own: this needs two"
    system = local(agents=1, slots=2)
    undisturbed = run(system, corpus, "calm", gpus=2)
    for number, name in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "frozen")):
        system.submit(job_on(corpus, name, gpus=2))
        before = workers(system.wait_step(name, 10))
        os.kill(before[1].pid, number)
        recovered = system.wait(name, "recovery", lambda job: job.status.islands[0].generation >= 2, 90)
        after = workers(system.wait_step(name, recovered.status.step + 1, 90))
        assert after[0].pid == before[0].pid
        assert after[1].pid != before[1].pid
        system.wait_phase(name, "SUCCEEDED", 120)
        assert_exact_ledger(system.figures(name), steps=STEPS, sequences=SEQUENCES)
        assert [f.loss for f in system.figures(name)] == [f.loss for f in undisturbed]
        assert final_state(system, name) == final_state(system, "calm")
