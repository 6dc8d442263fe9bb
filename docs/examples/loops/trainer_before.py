"""A trainer as torchtitan builds one: a config, a parallelised model, a loader with state, steps of micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from text import Characters, Decoder, loss_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler


@dataclass
class Config:
    steps: int = 60
    global_batch: int = 16
    micro_batch: int = 4
    lr: float = 3e-3
    warmup: int = 5
    clip: float = 1.0
    seed: int = 0


class Trainer:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.data = Characters()
        self.step = 0
        dist.init_process_group("gloo")
        self.parallelize(init_device_mesh("cpu", (dist.get_world_size(),)))

    def parallelize(self, mesh):
        torch.manual_seed(self.config.seed)
        self.model = Decoder()
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.config.lr)
        warm = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, 1.0, self.config.warmup)
        cool = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.config.steps)
        self.scheduler = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [warm, cool], [self.config.warmup])

    def batches(self) -> Iterator:
        while True:
            sampler = DistributedSampler(self.data, shuffle=True, drop_last=True)
            yield from DataLoader(self.data, batch_size=self.config.micro_batch, sampler=sampler, drop_last=True)

    def forward_backward(self, ids, targets):
        loss = loss_of(self.model, ids, targets)
        loss.backward()
        return loss

    def train_step(self, batches: Iterator) -> None:
        self.optimizer.zero_grad()
        micro_batches = self.config.global_batch // self.config.micro_batch // dist.get_world_size()
        for _ in range(micro_batches):
            ids, targets = next(batches)
            loss = self.forward_backward(ids, targets)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.scheduler.step()
        print(f"step {self.step}: loss {loss.item():.3f}")

    def train(self) -> None:
        batches = self.batches()
        while self.step < self.config.steps:
            self.step += 1
            self.train_step(batches)


Trainer(Config()).train()
