"""Programs that save while they train, and the storage that they save to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.live.state import state_of
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.codec import to_wire
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobMetadata, JobSpec, SnapshotsSpec, TrainJob
from trainctl.core.records.train_spec import BatchSpec
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.bridge import Checkpointed, Noticed, WorkerMessage
from trainctl.parallel.session import Session, places
from trainctl.parallel.session.control import NoControl, NoPage
from waiting import PATIENCE_S


class Keeping(NoControl):
    """A job file and a work folder; keeps what it is told, on whatever thread, and makes every checkpoint current."""

    def __init__(self, workdir: Path, spec: CheckpointSpec) -> None:
        super().__init__()
        self.reports: list[CheckpointReport] = []
        self.notices: list[str] = []
        self.told = threading.Condition()
        self._keep = spec.keep.last
        wire = to_wire(TrainJob(metadata=JobMetadata(name="alone"), spec=JobSpec(checkpoint=spec)))
        self._desired = replace(self._desired, spec=wire, workdir=str(workdir))

    def send(self, message: WorkerMessage) -> None:
        with self.told:
            if isinstance(message, Checkpointed):
                self.reports.append(message.report)
            if isinstance(message, Noticed) and "BatchNorm" not in message.text:  # its buffers are wanted here
                self.notices.append(message.text)
            self.told.notify_all()
        super().send(message)
        if isinstance(message, Checkpointed) and message.report.ref is not None:
            self.confirm()

    def confirm(self) -> None:
        """As the controller does."""
        saved = [report.ref.attempt for report in self.reports if report.ref is not None][-self._keep :]
        self._tell(replace(self._desired, kept_checkpoints=tuple(saved)))

    def wait_for(self, count: int) -> None:
        with self.told:
            assert self.told.wait_for(lambda: len(self.reports) >= count, PATIENCE_S), self.reports


class Counter:
    def __init__(self) -> None:
        self.counts = [0]

    def state_dict(self) -> dict[str, list[int]]:
        return {"counts": self.counts}

    def load_state_dict(self, state: Mapping[str, list[int]]) -> None:
        self.counts[:] = state["counts"]


class Run:
    """One worker: a model with buffers that change in the forward pass, an average, an object."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int = 6,
        interval: int = 2,
        background: bool = True,
        snapshots: int = 0,
        keep: int = 99,
        control: type[Keeping] = Keeping,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 40), nn.BatchNorm1d(40), nn.Tanh(), nn.Linear(40, 3))
        self.average = nn.Linear(6, 40).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.counter = Counter()
        spec = CheckpointSpec(
            interval_steps=interval,
            keep=CheckpointKeepSpec(last=keep),
            background=background,
            snapshots=SnapshotsSpec(interval_steps=snapshots),
        )
        self.control = control(folder, spec)
        self.folder = folder
        self.session = Session.open(control=self.control, page=NoPage())
        self.session.register(
            model=self.model,
            optimizer=self.optimizer,
            modules={"average": self.average},
            objects={"counter": self.counter},
            after_step=self.update_average,
        )
        batch = BatchSpec(sequences=8, micro_batches=2)
        self.session.set_data(num_samples=64, steps=steps, batch=batch, seed=3, schedule=lambda _: 0.05)
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def update_average(self, _: int) -> None:
        first = next(self.model.parameters())
        self.average.weight.lerp_(first.detach(), 0.5)

    def step(self, inside: Callable[[], None] = lambda: None) -> None:
        with self.session.step() as step:
            self.counter.counts[0] += 1
            for micro_batch in step.micro_batches():
                generator = torch.Generator().manual_seed(sum(micro_batch.sample_ids))
                rows = torch.randn(4, 6, generator=generator)
                step.backward(self.model(rows).square().sum(), 12)
            inside()
        self.states[self.session.applied_step] = self.state()

    def to_the_end(self) -> list[CheckpointReport]:
        while not self.session.done:
            self.step()
        return self.control.reports

    def state(self) -> dict[str, torch.Tensor]:
        found = state_of(
            self.model,
            [self.optimizer],
            modules={"average": self.average},
            instance="island-0",
            version=StateVersion(0, 0),
        )
        return {f"{t.key.kind} {t.key.fqn}": t.tensor.detach().clone() for t in found.tensors}

    def check(self, ref: CheckpointRef) -> None:
        """It holds every bit of its step, and nothing of a later one."""
        other = Run(self.folder / "other")
        into = state_of(
            other.model,
            [other.optimizer],
            modules={"average": other.average},
            instance="island-0",
            version=StateVersion(1, ref.step),
        )
        values: Any = load(ref, into)
        assert values["registered"]["counter"] == {"counts": [ref.step]}
        for name, tensor in self.states[ref.step].items():
            (found,) = [t.tensor for t in into.tensors if f"{t.key.kind} {t.key.fqn}" == name]
            assert torch.equal(found, tensor), name


class Storage:
    """Takes the place of writing files: slow, failing or hanging, as a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self.errors: list[int] = []
        self.tries = 0
        write = LocalStorage.write_file
        storage = self

        def write_file(self: LocalStorage, path: str, buffers: Iterable[memoryview | bytes]) -> int:
            if path.endswith(".safetensors"):
                storage.tries += 1
                if not storage.open.is_set():
                    storage.waiting.set()
                    storage.open.wait(PATIENCE_S)
                if storage.errors:
                    number = storage.errors.pop(0)
                    raise OSError(number, "injected")
            return write(self, path, buffers)

        monkeypatch.setattr(LocalStorage, "write_file", write_file)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(places, "RETRY_AFTER_S", (0.0, 0.0))
    return Storage(monkeypatch)
