"""The job that the demo runs: a Llama of a few million parameters on text that every machine has."""

from __future__ import annotations

import json

NAME = "demo"
STEPS = 180


def job_file(corpus: str) -> str:
    """The job file (JSON is YAML): four workers on two nodes, checkpoints and evaluation on the way."""
    train = {
        "task": "llama",
        "model": {"layers": 6, "hidden": 192, "heads": 3, "context": 128},
        "data": {"uri": corpus, "include": "*.py" if corpus == "python-stdlib" else "*"},
        "tokenizer": {"kind": "bpe", "vocabSize": 2048},
        "optimizer": {"lr": 1.5e-3},
        "schedule": {"warmupSteps": 20},
        "steps": STEPS,
        "batch": {"sequences": 16, "microBatches": 4},
        "eval": {"every": 40, "sequences": 16},
        "seed": 1,
    }
    spec = {
        "nodes": {"min": 1, "max": 2},
        "resources": {"workersPerNode": 2, "threadsPerWorker": 1},
        "recovery": {"profile": "fast", "replacementWait": "500ms"},
        "checkpoint": {"intervalSteps": 80},
        "train": train,
    }
    return json.dumps(
        {"apiVersion": "trainctl.dev/v1", "kind": "TrainJob", "metadata": {"name": NAME}, "spec": spec}, indent=2
    )
