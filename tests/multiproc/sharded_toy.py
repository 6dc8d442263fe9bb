"""As ``toy``, with a model that shards itself by FSDP2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from multiproc.toy import Counter, batch, build, loss_of
from trainctl.checkpoint.exchange.lanes import MESSAGE_BYTES
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.bridge import WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter
from trainctl.parallel.recovery import file_exchange
from trainctl.parallel.replica.training_state import TrainingState
from trainctl.parallel.session import Session

STEPS = 100
"""Enough for a few snapshots, however slow the machine makes them beside such small steps."""
LONG: Mapping[str, Any] = {"steps": STEPS, "hidden": 37, "evaluate_every": 20}
"""Options of runs with snapshots."""


def sharded(
    mesh: DeviceMesh, dtype: torch.dtype, hidden: int, counter: Counter, after_step: Callable[[int], None]
) -> TrainingState:
    model, _ = build(1, hidden, dtype)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    return TrainingState(
        model=model,
        optimizers=[optimizer],
        schedulers=[scheduler],
        objects={"counter": counter},
        after_step=after_step,
    )


def train(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """Options: steps, hidden, dtype, micro_batches, evaluate_every, room_bytes, message_bytes.

    Rank 0 writes the final parameters to ``folder``. ``room_bytes`` is what the nodes' memory says that it has for
    snapshots, ``message_bytes`` the size of a message with a part of one.
    """
    torch.set_num_threads(1)
    vars(file_exchange).update(MESSAGE_BYTES=options.get("message_bytes", MESSAGE_BYTES))
    if room_bytes := options.get("room_bytes"):
        NodeMemory.room_bytes = lambda self: room_bytes  # type: ignore[method-assign]
    dtype = getattr(torch, options.get("dtype", "float32"))
    session = Session.open(control=bridge, page=page)
    counter = Counter()
    committed: list[int] = []
    session.register_sharded(lambda mesh: sharded(mesh, dtype, options["hidden"], counter, committed.append))
    micro_batches = options.get("micro_batches", 4)
    session.set_data(
        num_samples=97, steps=options["steps"], batch=BatchSpec(sequences=12, micro_batches=micro_batches), seed=5,
        clip_norm=1.0,
    )  # fmt: skip

    @torch.no_grad()
    def evaluate(item: int) -> tuple[torch.Tensor, int]:
        session.model.eval()
        loss = loss_of(session.model, batch((1000 + item,), dtype))
        session.model.train()
        return loss

    session.on_evaluate(every=options.get("evaluate_every", 4), num_items=5, evaluate=evaluate)
    while not session.done:
        with session.step() as step:
            counter.count += 1
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(session.model, batch(micro_batch.sample_ids, dtype)))
        if session.applied_step == options["steps"] and not session.done:
            _write(session.model, Path(options["folder"]))
    assert counter.count == committed[-1] == session.applied_step


def _write(model: nn.Module, folder: Path) -> None:
    whole = [p.full_tensor().detach().reshape(-1) for p in model.parameters() if isinstance(p, DTensor)]
    torch.save(torch.cat(whole), folder / "final.pt")
