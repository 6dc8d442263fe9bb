"""Tasks of one's own and models of transformers on a whole system, from the job file to the export.

Without it own tasks and models could work in parts, but not from a job file to an export.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.local_system import LocalSystem
from e2e.own_task import EXAMPLE, ended, own
from unit.tasks.hf_folders import load, logits, write_corpus, write_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    system = LocalSystem(tmp_path_factory.mktemp("tasks") / "local", agents=2, slots=1)
    system.up()
    yield system
    system.down()


def test_the_example_trains_on_two_nodes(system: LocalSystem) -> None:
    system.submit(own("ratings"))
    job = ended(system, "ratings")
    assert job.status.phase == "SUCCEEDED", job.status.message
    figures = system.figures("ratings")
    assert figures[-1].loss < figures[0].loss / 3


def test_a_module_that_is_not_there_fails_once_and_says_so(system: LocalSystem) -> None:
    system.submit(own("nowhere", task="not_there:build"))
    job = ended(system, "nowhere")
    assert job.status.phase == "FAILED"
    shown = system.cli("describe", "nowhere").stdout + system.cli("explain", "nowhere").stdout
    assert "module not_there was not found" in shown
    assert "spec.env.PYTHONPATH" in shown


def test_weights_that_every_worker_draws_anew_fail_with_what_to_do(system: LocalSystem, tmp_path: Path) -> None:
    (tmp_path / "unseeded.py").write_text(
        """
import os
import torch
from ratings import build as seeded

def build(context):
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
    return seeded(context)
"""
    )
    job = yaml.safe_load(own("unseeded", task="unseeded:build"))
    job["spec"]["env"]["PYTHONPATH"] = f"{EXAMPLE}:{tmp_path}"
    system.submit(yaml.safe_dump(job))
    ended_job = ended(system, "unseeded")
    assert ended_job.status.phase == "FAILED"
    assert "built a model or optimizer of other values than rank 0 did" in system.cli("explain", "unseeded").stdout


def test_a_model_of_transformers_and_back(system: LocalSystem, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "qwen3")
    job = {
        "metadata": {"name": "qwen"},
        "spec": {
            "nodes": {"min": 1, "max": 2},
            "resources": {"threadsPerWorker": 1},
            "train": {
                "task": "hf_causal_lm",
                "model": {"path": str(tmp_path / "model"), "context": 16},
                "data": {"uri": write_corpus(tmp_path / "corpus"), "holdOutEvery": 4},
                "steps": 5,
                "batch": {"sequences": 8, "microBatches": 4},
                "eval": {"every": 0},
            },
        },
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    plan = system.cli("submit", "-f", str(file), "--dry-run").stdout
    assert (
        "not checked here, but in the workers before the first step: whether transformers can build the model" in plan
    )
    system.submit(file.read_text())
    found = ended(system, "qwen")
    assert found.status.phase == "SUCCEEDED", found.status.message
    system.cli("checkpoints", "export", "qwen", str(tmp_path / "export"))
    assert logits(load(tmp_path / "export")).shape == logits(load(tmp_path / "model")).shape
    assert not logits(load(tmp_path / "export")).equal(logits(load(tmp_path / "model")))
