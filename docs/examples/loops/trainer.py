"""A trainer as torchtitan builds one: a config, a parallelised model, steps of micro-batches."""

from dataclasses import dataclass

import torch
from text import Characters, Decoder, loss_of
from torch.distributed.fsdp import fully_shard

from trainctl.parallel.session import BatchSpec, Session, TrainingState


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
        batch = BatchSpec(sequences=config.global_batch, micro_batches=config.global_batch // config.micro_batch)
        plan = {"steps": config.steps, "batch": batch, "clip_norm": config.clip, "seed": config.seed}
        self.session = Session.open()
        self.session.register_sharded(self.parallelize)
        self.session.set_data(num_samples=len(self.data), **plan)

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
        return TrainingState(model=self.model, optimizers=[self.optimizer], schedulers=[self.scheduler])

    def train_step(self) -> None:
        with self.session.step() as step:
            for ids, targets in step.batches(self.data):
                loss = loss_of(self.model, ids, targets, reduction="sum")
                step.backward(loss, targets.numel())

    def train(self) -> None:
        while not self.session.done:
            self.train_step()
        print(f"trained {self.config.steps} steps")


Trainer(Config()).train()
