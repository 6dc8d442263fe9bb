"""A trainer as torchtitan builds one: a config, a parallelised model, steps of micro-batches."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from text import Characters, Decoder, loss_of
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
        dist.init_process_group("gloo")
        self.parallelize(dist.init_device_mesh("cpu", (dist.get_world_size(),)))
        self.micro_batches = config.global_batch // config.micro_batch // dist.get_world_size()
        sampler = DistributedSampler(self.data, seed=config.seed)
        self.batches = iter(DataLoader(self.data, batch_size=config.micro_batch, sampler=sampler))

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

    def train_step(self) -> None:
        self.optimizer.zero_grad()
        for _ in range(self.micro_batches):
            ids, targets = next(self.batches)
            loss = loss_of(self.model, ids, targets) / self.micro_batches
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.scheduler.step()

    def train(self) -> None:
        for _ in range(self.config.steps):
            self.train_step()
        print(f"trained {self.config.steps} steps")


Trainer(Config()).train()
