from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from trainctl.parallel.session.program import run_program

DRAWS = """
import sys, torch
with open(sys.argv[1], "a") as file:
    print(torch.nn.Linear(3, 2).weight.tolist(), file=file)
"""


def test_every_worker_draws_the_same_initial_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    script, drawn = tmp_path / "draws.py", tmp_path / "drawn"
    script.write_text(DRAWS)
    for _ in range(2):
        torch.default_generator.seed()
        run_program(["python", str(script), str(drawn)], "")
    first, second = drawn.read_text().splitlines()
    assert first == second
