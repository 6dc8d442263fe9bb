"""One run: controllers, store, network, agents, workers and people, a plan of what goes wrong, and what was seen."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from simulation.agents import AgentLife, Obeyed
from simulation.controllers import LATER, ControllerHost
from simulation.data_plane import DataPlane, MemoryFiles
from simulation.nemeses import NEMESES
from simulation.network import Network
from simulation.nodes import Node
from simulation.plan import Plan, Step
from simulation.users import Asked, Users
from simulation.virtual_loop import OUTSIDE, run_virtually
from simulation.virtual_store import VirtualStore, Written
from simulation.wishes import WISHES
from trainctl.controller import keys
from trainctl.core.codec import from_wire
from trainctl.core.ids import DEFAULT_TENANT, FIRST_ISLAND
from trainctl.core.records.generation import GenerationRecord
from unit.domain.domain_sim_nodes import SimWorker

LEASE_TTL_S = 10.0
PATIENCE_S = 600.0
"""After the last fault everything has ended within so long."""
LOOK_EVERY_S = 2.0
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run left behind.

    Attributes:
        plan: what was to happen.
        folder: where controllers and jobs had their files.
        written: all revisions of the store.
        obeyed: all that agents obeyed.
        asked: all that people asked for.
        slots: of each agent.
        saved: by job and URI of a checkpoint the generations that voted its steps.
        votes: by job the votes there were, as (lineage, step, generation).
        ends: controllers that ended by themselves, with why.
        bugs: exceptions that nobody expects.
        settled_s: when the last job had ended, virtual seconds; infinite if one never did.
        waiting: what had not ended then.
        marked: URIs of checkpoints whose files carry the mark of a pin.
        gone: URIs of checkpoints whose files were removed.
        doubts: what leaders doubted of the store, whenever somebody asked.
        schemas: that each controller process could write.
    """

    plan: Plan
    folder: str
    written: tuple[Written, ...]
    obeyed: tuple[Obeyed, ...]
    asked: tuple[Asked, ...]
    saved: dict[tuple[str, str], tuple[int, ...]]
    votes: dict[str, frozenset[tuple[int, int, int]]]
    ends: tuple[str, ...]
    bugs: tuple[str, ...]
    settled_s: float
    waiting: tuple[str, ...]
    marked: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = ()
    schemas: dict[str, int] = field(default_factory=dict)


class World:
    """Everything that takes part."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = str(folder)
        self.chance = Random(plan.seed * 2 + 1)
        self.begin_s = asyncio.get_running_loop().time()
        self.store = VirtualStore()
        self.network = Network(self._random())
        names = [f"controller-{number}" for number in range(plan.controllers)]
        self.files = MemoryFiles()
        self.hosts = [
            ControllerHost(name, folder, self.store, self.network, self._random(), LEASE_TTL_S, self.files)
            for name in names
        ]
        self.addresses = [host.address for host in self.hosts]
        self.users = Users(self.network, self.addresses)
        self.obeyed: list[Obeyed] = []
        self.plane = DataPlane(self._random(), self._record, self.files)
        self.nodes = [
            Node(f"node-{number}", self.network, tuple(names), self._begin_agent) for number in range(plan.nodes)
        ]
        self._requests = 0
        self._newest: tuple[Written, ...] = ()
        self._replaced = False
        self.doubts: list[str] = []

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def host(self, who: int) -> ControllerHost:
        """A machine with a controller."""
        return self.hosts[who % len(self.hosts)]

    def leader(self) -> ControllerHost:
        """The machine whose controller the store says leads, or the first one."""
        found = self.store.get(keys.LEADER)
        address = str(keys.decode(found.value)["address"]) if found is not None else ""
        return next((host for host in self.hosts if host.address == address), self.hosts[0])

    def node(self, who: int) -> Node:
        """A machine with an agent."""
        return self.nodes[who % len(self.nodes)]

    def workers(self, who: int, count: int) -> list[SimWorker]:
        """So many living workers of one job."""
        by_job: dict[str, list[SimWorker]] = {}
        for uid, worker in self.plane.workers():
            by_job.setdefault(uid, []).append(worker)
        if not by_job:
            return []
        chosen = by_job[sorted(by_job)[who % len(by_job)]]
        return [chosen[(who + number) % len(chosen)] for number in range(min(count, len(chosen)))]

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """Does something after a while."""
        asyncio.get_running_loop().call_later(delay_s, act, context=OUTSIDE)

    def submit(self, job: dict[str, Any], request_id: str, *, first: int = 0) -> None:
        """Somebody submits a job."""
        self.users.submit(job, request_id, first=first)

    def verb(self, method: str, step: Step, request_id: str, /, **fields: Any) -> None:
        """Somebody asks for something about one of the jobs."""
        self.users.verb(method, self._job_name(step), request_id, first=step.who // 100, **fields)

    def saved_step(self, step: Step) -> int:
        """The step of one of the checkpoints of the job that a wish is about; 7 if it has none."""
        found = self.store.get(keys.name(DEFAULT_TENANT, self._job_name(step)))
        stored = self.store.get(keys.status(DEFAULT_TENANT, keys.decode(found.value))) if found is not None else None
        saved = [ref["step"] for ref in keys.decode(stored.value)["checkpoints"]] if stored is not None else []
        return int(saved[step.count % len(saved)]) if saved else 7

    def _job_name(self, step: Step) -> str:
        return self.plan.jobs[step.who % len(self.plan.jobs)].name

    def restore(self, age_s: float) -> bool:
        """Somebody puts an older copy of the store in place; False if one is there already, or none is so old."""
        copy = [written for written in self.store.written if written.at_s <= self.now_s - age_s]
        if self._newest or not copy:
            return False
        self._newest, self._replaced = tuple(self.store.written), True
        self._with_store(copy)
        return True

    def mend(self, *, accept: bool) -> None:
        """Puts the newest copy in place again, or accepts what there is: what happened meanwhile is forgotten."""
        if self._newest:
            newest, self._newest = self._newest, ()
            self._with_store(None if accept else newest, accept=accept)

    def look(self) -> None:
        """Somebody runs ``trainctl doctor``."""

        async def ask() -> None:
            self.doubts.append(await self.users.doubt())

        self.users.process.spawn(ask())

    def _with_store(self, copy: Sequence[Written] | None, *, accept: bool = False) -> None:
        for host in self.hosts:
            host.kill()
        if copy is not None:
            self.store.restore(copy)
        for host in self.hosts:
            host.start(accept=accept)

    async def run(self) -> Ran:
        """From the first controller to the last job's end."""
        plane = asyncio.create_task(self.plane.run())
        for number, host in enumerate(self.hosts):
            self.later(0.2 * number, host.start)
        for number, node in enumerate(self.nodes):
            self.later(0.5 + 0.01 * number, node.start)
        for job in self.plan.jobs:
            self.later(1.0 + job.at_s, lambda job=job: self.submit(job.wire(), f"submit-{job.name}"))  # type: ignore[misc]
        for step in self.plan.steps:
            self.later(step.at_s, lambda step=step: self._take(step))  # type: ignore[misc]
        await asyncio.sleep(self.plan.quiet_s)
        settled_s, waiting = await self._settle()
        written = tuple(self.store.written)
        plane.cancel()
        await self._bury()
        return Ran(
            plan=self.plan,
            folder=self.folder,
            written=written,
            obeyed=tuple(self.obeyed),
            asked=tuple(self.users.asked),
            saved={(uid, uri): h for uid, plane in self.plane.jobs.items() for uri, h in plane.saved.items()},
            votes={uid: frozenset(plane.votes) for uid, plane in self.plane.jobs.items()},
            ends=tuple(end for host in self.hosts for end in host.ends),
            bugs=tuple(self.network.bugs),
            settled_s=settled_s,
            waiting=waiting,
            marked=frozenset(self.files.marked),
            gone=frozenset(self.files.gone),
            doubts=tuple(self.doubts),
            schemas={name: schema for host in self.hosts for name, schema in host.schemas.items()},
        )

    def _take(self, step: Step) -> None:
        self._requests += 1
        if step.kind in NEMESES:
            NEMESES[step.kind][0](self, step)
        else:
            WISHES[step.kind](self, step, f"{step.kind}-{self._requests}")

    def heal(self) -> None:
        """Nothing is wrong any more, and everything that can run does."""
        self.store.full = False
        self.mend(accept=True)
        self.network.heal()
        for host in self.hosts:
            host.link.heal()
            host.arm("", 0)
            host.process.thaw()
            host.release = LATER if self._is_newer() else host.release
            host.start()
        for node in self.nodes:
            node.thaw()
            node.start()

    def _is_newer(self) -> bool:
        """Whether the store is in a form that today's version cannot read."""
        found = self.store.get(keys.INSTALLATION)
        return found is not None and bool(keys.decode(found.value)["schema"] == LATER[-1].to)

    async def _settle(self) -> tuple[float, tuple[str, ...]]:
        """Waits for the end of all jobs; somebody resumes those that are paused, and gives nodes back."""
        end_s = self.now_s + PATIENCE_S
        number = 0
        while self.now_s < end_s:
            self.heal()
            if self._replaced and (any(host.refuses for host in self.hosts) or await self.users.doubt()):
                self._with_store(None, accept=True)
            waiting = self._waiting()
            if not waiting and not self.users.waiting:
                return self.now_s, ()
            for node in () if self.users.waiting else self._cordoned():
                number += 1
                self.users.verb("UncordonNode", node, f"in-the-end-{number}")
            for name, phase in waiting:
                if phase == "PAUSED" and not self.users.waiting:
                    number += 1
                    self.users.verb("ResumeJob", name, f"in-the-end-{number}")
            await asyncio.sleep(LOOK_EVERY_S)
        asked = [f"{a.method} {a.subject} {a.request_id}" for a in self.users.asked if not a.answer]
        return float("inf"), (*(f"{name} {phase}" for name, phase in self._waiting()), *asked)

    def _cordoned(self) -> list[str]:
        """Nodes that get no work."""
        marks = ((key, item) for key, item in self.store.keys.items() if key.startswith(keys.MARKS))
        return sorted(key.removeprefix(keys.MARKS) for key, item in marks if keys.decode(item.value)["cordoned"])

    def _waiting(self) -> list[tuple[str, str]]:
        """Jobs that have not ended, or are to be deleted and are still there."""
        found = []
        for key, item in self.store.keys.items():
            if key.startswith(keys.JOBS) and key.endswith(keys.STATUS):
                state = _decoded(item.value)
                if state["phase"] not in ENDED or state.get("deletion"):
                    found.append((state["spec"]["metadata"]["name"], state["phase"]))
        return sorted(found)

    async def _bury(self) -> None:
        for node in self.nodes:
            await node.bury()
        for host in self.hosts:
            await host.bury()
        await self.users.process.bury()
        self.store.close()

    def _begin_agent(self, name: str, number: int) -> AgentLife:
        return AgentLife(
            node=name,
            number=number,
            slots=self.plan.slots,
            targets=self.addresses,
            network=self.network,
            plane=self.plane,
            chance=self._random(),
            obeyed=self.obeyed,
        )

    def _record(self, uid: str, generation: int) -> GenerationRecord | None:
        found = self.store.get(keys.generation(DEFAULT_TENANT, uid, FIRST_ISLAND, generation))
        return from_wire(GenerationRecord, keys.decode(found.value)) if found is not None else None

    def _random(self) -> Random:
        return Random(self.chance.getrandbits(64))


def play(plan: Plan) -> Ran:
    """Runs a plan from its beginning to its end."""
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory_folder()))
    try:
        with _garbage_kept():
            return run_virtually(lambda: _play(plan, folder))
    finally:
        shutil.rmtree(folder)


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Nearly all that a run makes lives until its end: looking for garbage before would take a third of the time."""
    collects = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        gc.collect()
        gc.unfreeze()


@lru_cache(maxsize=64)  # what does not change any more is looked at again and again
def _decoded(value: bytes) -> Any:
    return keys.decode(value)


async def _play(plan: Plan, folder: Path) -> Ran:
    return await World(plan, folder).run()


def memory_folder() -> str | None:
    """A folder that costs no disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
