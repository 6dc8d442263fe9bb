"""What fifty saves use, and what is left when the session is closed: nothing grows, nothing leaks.

Without it a job that saves for a week could run out of memory or open files.
"""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.session import Session
from trainctl.parallel.session.control import NoPage
from unit.session.saving_runs import Keeping
from waiting import PATIENCE_S

SAVES = 50
WARM = 10
"""Saves until the allocator and the pool have what they need."""
OF_THE_PROCESS = "quarantine"
"""Of the collectives: holds what abandoned groups leave behind, as long as the process lives."""
TENSOR_BYTES = 4 * 1 << 20
"""Of a layer of 1024 x 1024."""
STATE_BYTES = 3 * TENSOR_BYTES
"""Parameters and two moments of it: a save that is leaked shows at once."""


class Trainer:
    """Saves after every step, and keeps two checkpoints: one alone would be read back, into memory of its own."""

    def __init__(self, folder: Path, *, background: bool) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1024, 1024, bias=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        spec = CheckpointSpec(interval_steps=1, keep=CheckpointKeepSpec(last=2), background=background)
        self.control = Keeping(folder, spec)
        self.session = Session.open(control=self.control, page=NoPage())
        self.session.register(model=self.model, optimizer=self.optimizer)
        batch = BatchSpec(sequences=2, micro_batches=1)
        self.session.set_data(num_samples=64, steps=SAVES, batch=batch, seed=3, schedule=lambda _: 0.01)

    def step(self) -> None:
        with self.session.step() as step:
            for _ in step.micro_batches():
                step.backward(self.model(torch.ones(2, 1024)).square().sum(), 2)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> set[str]:
    """What the descriptors of this process lead to; a pipe or socket by its number."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the one that listed them
    return found


def shared_memory() -> set[str]:
    """What is there, but for folders that other tests have at the same time."""
    others = ("trainctl-", "pytest-", "simulation-", "sem.mp-")
    return {name for name in os.listdir("/dev/shm") if not name.startswith(others)}


def slope(values: list[int]) -> float:
    """Of the straight line through them, a step."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((index - middle) * (value - mean) for index, value in enumerate(values))
    return above / sum((index - middle) ** 2 for index in range(len(values)))


@pytest.mark.parametrize("background", [True, False])
def test_memory_does_not_grow_over_fifty_saves(tmp_path: Path, background: bool) -> None:
    trainer = Trainer(tmp_path, background=background)
    rss, pool = [], []
    while not trainer.session.done:
        trainer.step()
        if trainer.session.applied_step >= WARM:
            rss.append(rss_bytes())
            assert trainer.session._run is not None
            pool.append(trainer.session._run.checkpoints.pool.held_bytes)
    reports = trainer.control.reports
    assert [report.step for report in reports] == list(range(1, SAVES + 1))
    assert all(report.ref is not None for report in reports), [report.error for report in reports]
    assert max(pool) == min(pool)
    assert (pool[-1] >= STATE_BYTES) == background
    assert pool[-1] <= 2 * (STATE_BYTES + (1 << 20)), "two copies at most"
    # A process that ran other tests before has an allocator that grows by some 0.3 MiB a save for a while.
    assert slope(rss) < TENSOR_BYTES / 4, f"one tensor leaked in every fourth save: {[size >> 20 for size in rss]}"
    assert list((tmp_path / "checkpoints").glob("step-*")), "the last one is kept"


def test_nothing_is_left_open_after_the_end(tmp_path: Path) -> None:
    threads, files, shared = set(threading.enumerate()), open_files(), shared_memory()
    trainer = Trainer(tmp_path, background=True)
    while not trainer.session.done:
        trainer.step()
    trainer.session.close()
    trainer.control.wait_for(SAVES)
    left = {thread for thread in set(threading.enumerate()) - threads if thread.name != OF_THE_PROCESS}
    for thread in left:
        thread.join(PATIENCE_S)
    assert not [thread.name for thread in left if thread.is_alive()]
    del trainer
    gc.collect()
    assert not open_files() - files
    assert not shared_memory() - shared
