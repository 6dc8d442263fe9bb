"""The same loop under torchft: one replica group per worker, healed by its peers.

The gradients are reduced as one flat buffer through the manager: torchft 0.2.0's own DistributedDataParallel ends with
an AssertionError in its hook when a peer dies during the reduction: every kill would be a restart of everybody.

Arguments: workload JSON, step log, steps, replica index. TORCHFT_LIGHTHOUSE names the lighthouse.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore
from torchft import Manager, Optimizer, ProcessGroupGloo

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.workload import StepLog, Workload, loss_of


def main() -> None:
    workload = Workload(**json.loads(sys.argv[1]))
    log, steps, replica = StepLog(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(store.port), RANK="0", WORLD_SIZE="1")
    model, inner = workload.build()

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        inner.load_state_dict(state["optimizer"])

    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=5)),
        load_state_dict=load,
        state_dict=lambda: {"model": model.state_dict(), "optimizer": inner.state_dict()},
        min_replica_size=1,
        replica_id=f"replica_{replica}",
        timeout=timedelta(seconds=10),
        hostname="127.0.0.1",
    )
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters))
    optimizer = Optimizer(manager, inner)
    batches = workload.batches(replica, workload.world_size)
    while manager.current_step() < steps:
        optimizer.zero_grad()
        own = next(batches)
        for tokens in own:
            torch.autograd.backward(loss_of(model, tokens) / len(own))
        torch.cat([p.grad.flatten() for p in parameters if p.grad is not None], out=flat)
        manager.allreduce(flat).wait()
        for p, reduced in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            p.grad = reduced.view_as(p).clone()
        before = manager.current_step()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if manager.current_step() > before:
            log.committed(manager.current_step())
    manager.shutdown()


if __name__ == "__main__":
    main()
