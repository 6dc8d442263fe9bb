"""The workers of all jobs: those of ``unit.domain.domain_sim_nodes``, spread over nodes that hold many jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Protocol

from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, WorkerDesired, WorkerObserved
from unit.domain.domain_sim_nodes import SimAgent, SimCluster, SimGroup, SimWorker

TICK_S = 0.25
ACTS_PER_TICK = 3
Sign = tuple[Any, ...]


class Owner(Protocol):
    """The life of an agent whose workers these are."""

    def moving(self) -> bool:
        """Whether it has a turn now."""
        ...

    def changed(self) -> None:
        """A worker has news."""
        ...

    def took(self, uid: str, figures: Sequence[StepFigures], reports: Sequence[CheckpointReport]) -> None:
        """What a worker wants the controller to have."""
        ...


class MemoryFiles:
    """Implements ``CheckpointFiles``: not which are there, but which have a mark and which were removed."""

    def __init__(self) -> None:
        self.marked: set[str] = set()
        self.gone: set[str] = set()

    def saved(self, uri: str) -> None:
        """A worker wrote it."""
        self.gone.discard(uri)

    def look_at(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        if ref.uri in self.gone:
            raise CheckpointError(f"{ref.uri}: removed")

    def pin(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        self.look_at(ref)
        self.marked.add(ref.uri)

    def unpin(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        self.marked.discard(ref.uri)

    def accept(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        self.look_at(ref)

    def refuse(self, ref: CheckpointRef, reason: str) -> None:
        """See ``CheckpointFiles``; which are damaged the workers say themselves."""

    def discard(self, ref: CheckpointRef) -> None:
        """See ``CheckpointFiles``."""
        self.marked.discard(ref.uri)
        self.gone.add(ref.uri)


class JobPlane(SimCluster):
    """The workers of one job, and what they share; agents are told of some members only, their store of all."""

    def __init__(self, uid: str, steps: int, checkpoint_every: int, files: MemoryFiles) -> None:
        super().__init__(steps, checkpoint_every)
        self.uid = uid
        self.root = f"mem://{uid}/"
        self.files = files
        self.parts: dict[SimAgent, Owner] = {}
        self.records: dict[tuple[int, str], GenerationRecord] = {}

    def group(self, record: GenerationRecord) -> SimGroup:
        return super().group(self.whole(record))

    def whole(self, record: GenerationRecord) -> GenerationRecord:
        return self.records.get((record.generation, record.nonce), record)

    def tick(self, now_s: float, chance: Random) -> None:
        """Everybody does a little."""
        for part, owner in list(self.parts.items()):
            if owner.moving():
                part.converge(now_s, chance)
        for _ in range(ACTS_PER_TICK):
            for part, owner in list(self.parts.items()):
                if owner.moving():
                    for worker in list(part.workers.values()):
                        self._act(worker, owner, now_s)

    def _act(self, worker: SimWorker, owner: Owner, now_s: float) -> None:
        worker.act(self, now_s)
        if self.figures or self.reports:
            for report in self.reports:
                if report.ref is not None:
                    self.files.saved(report.ref.uri)
            owner.took(self.uid, tuple(self.figures), tuple(self.reports))
            self.figures.clear()
            self.reports.clear()


class DataPlane:
    """All jobs.

    Args:
        chance: of delays.
        record: the whole committed record of a generation, by job and number, where agents are told a part of it.
        files: of the checkpoints of all jobs.
    """

    def __init__(
        self, chance: Random, record: Callable[[str, int], GenerationRecord | None], files: MemoryFiles
    ) -> None:
        self._chance = chance
        self._record = record
        self._files = files
        self.jobs: dict[str, JobPlane] = {}
        self.signs: dict[SimAgent, Sign] = {}

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            for plane in self.jobs.values():
                if plane.parts:
                    plane.tick(loop.time(), self._chance)
                    self._tell(plane)

    def part(self, uid: str, desired: WorkerDesired, owner: Owner, node: str, incarnation: int) -> SimAgent:
        """The hands of one agent life in one job."""
        if uid not in self.jobs:
            spec: Any = desired.spec
            every = spec["spec"].get("checkpoint", {}).get("intervalSteps") or 10**9
            self.jobs[uid] = JobPlane(uid, spec["spec"]["train"]["steps"], every, self._files)
        plane = self.jobs[uid]
        part = _Part(node, incarnation, 99)
        plane.agents.append(part)
        plane.parts[part] = owner
        return part

    def order(self, part: SimAgent, uid: str, desired: Sequence[WorkerDesired]) -> None:
        """What the controller wants of one part."""
        plane = self.jobs[uid]
        part.desired = tuple(self._complete(plane, one) for one in desired)

    def gone(self, uid: str, part: SimAgent, now_s: float) -> None:
        """The agent is dead, and with it its workers."""
        plane = self.jobs[uid]
        for worker in part.workers.values():
            worker.end(-9, now_s)
        plane.agents.remove(part)
        plane.parts.pop(part)
        self.signs.pop(part, None)

    def workers(self) -> list[tuple[str, SimWorker]]:
        """Everybody who lives."""
        return [(uid, w) for uid, plane in self.jobs.items() for w in plane.workers() if w.alive]

    def _complete(self, plane: JobPlane, desired: WorkerDesired) -> WorkerDesired:
        record = desired.record
        if record is None:
            return desired
        key = (record.generation, record.nonce)
        if key not in plane.records:
            plane.records[key] = self._record(plane.uid, record.generation) or record
        return replace(desired, record=plane.records[key])

    def _tell(self, plane: JobPlane) -> None:
        for part, owner in plane.parts.items():
            sign = tuple(_sign(worker) for worker in part.workers.values())
            if self.signs.get(part) != sign:
                self.signs[part] = sign
                owner.changed()


class _Part(SimAgent):
    """Compared by identity: the same node has one for each life and job."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _sign(worker: SimWorker) -> Sign:
    """What a worker tells its agent at once, as against what the agent reads off its page when it reports anyway."""
    return (
        worker.incarnation, worker.phase, worker.generation, worker.prepared, worker.exit_code, worker.held,
        worker.joined,
    )  # fmt: skip


def seen(parts: Sequence[SimAgent], now_s: float) -> tuple[WorkerObserved, ...]:
    """What an agent reports."""
    return tuple(worker.observed(now_s) for part in parts for worker in part.workers.values())
