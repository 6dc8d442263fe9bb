"""A small training program for process worlds: random shapes, deterministic data, results in a file."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.bridge import WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter
from trainctl.parallel.session import Session, checkpoints

WIDTH = 16


def build(seed: int, hidden: int, dtype: torch.dtype) -> tuple[nn.Module, torch.optim.Optimizer]:
    shapes = random.Random(seed)
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(WIDTH, hidden)]
    for _ in range(shapes.randint(1, 3)):
        layers += [nn.GELU(), nn.Linear(hidden, hidden + shapes.randint(1, 7)), nn.Dropout(0.1)]
        hidden = layers[-2].out_features  # type: ignore[assignment]
    model = nn.Sequential(*layers, nn.GELU(), nn.Linear(hidden, 4)).to(dtype)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=0.0, fused=True)


def batch(ids: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(i), dtype=dtype) for i in ids])


def loss_of(model: nn.Module, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    return (model(rows) - rows[:, :4].sin()).square().sum(), 4 * len(rows)


class Counter:
    """An object of the training state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.count = state["count"]


def no_memory(size_bytes: int) -> torch.Tensor:
    """As torch says it."""
    raise RuntimeError(f"cannot allocate {size_bytes} bytes")


def train(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """Options: steps, hidden, dtype, seed, micro_batches, evaluate_every, poor_slots; the final state to ``folder``.

    ``bare``: no module beside the model. ``elsewhere``: begins with other weights than the seed's. Workers in
    ``poor_slots`` have no memory for copies of the state.
    """
    torch.set_num_threads(1)
    if bridge.latest().slot in options.get("poor_slots", ()):
        checkpoints.HostPool = partial(HostPool, memory=no_memory)  # type: ignore[assignment, attr-defined]
    dtype = getattr(torch, options.get("dtype", "float32"))
    model, optimizer = build(options.get("seed", 1), options.get("hidden", 40), dtype)
    if options.get("elsewhere"):
        torch.nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in model.parameters())), model.parameters())
    session = Session.open(control=bridge, page=page)
    counter, average = Counter(), copy.deepcopy(model).requires_grad_(False)

    def update_average(_: int) -> None:
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value.detach(), 0.1)

    session.register(
        model=model,
        optimizer=optimizer,
        modules={} if options.get("bare") else {"average": average},
        objects={"counter": counter},
        after_step=update_average,
    )
    session.set_data(
        num_samples=97,
        steps=options["steps"],
        batch=BatchSpec(sequences=12, micro_batches=options.get("micro_batches", 4)),
        seed=5,
        schedule=lambda step: 0.01 / step**0.5,
        clip_norm=1.0,
    )

    @torch.no_grad()
    def evaluate(item: int) -> tuple[torch.Tensor, int]:
        model.eval()
        loss = loss_of(model, batch((1000 + item,), dtype))
        model.train()
        return loss

    session.on_evaluate(every=options.get("evaluate_every", 0), num_items=5, evaluate=evaluate)
    while not session.done:
        with session.step() as step:
            counter.count += 1
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, batch(micro_batch.sample_ids, dtype)))
    assert counter.count == session.applied_step, f"step {session.applied_step} counted as {counter.count}"
    latest = bridge.latest()
    state = torch.cat([p.detach().reshape(-1).view(torch.uint8) for p in model.parameters()])
    moments = [v.reshape(-1).view(torch.uint8) for s in optimizer.state.values() for v in s.values()]
    registered = [] if options.get("bare") else average.parameters()
    means = [p.reshape(-1).view(torch.uint8) for p in registered]
    Path(options["folder"], f"final-{latest.slot}").write_bytes(bytes(torch.cat([state, *moments, *means]).numpy()))


def final_states(folder: Path, slots: int) -> set[bytes]:
    """The different final states of ``slots`` workers: one, if all is well."""
    return {(folder / f"final-{slot}").read_bytes() for slot in range(slots)}
