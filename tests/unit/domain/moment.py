"""One moment of a running job, for tests of what is concluded from it: they change what is seen, or what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.detect import find_faults
from trainctl.controller.domain.reconcile.fault import Fault
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import SlotState
from trainctl.controller.domain.view import AgentView, ClusterView, ListedAgents
from trainctl.core.records.worker import WorkerObserved
from unit.domain.domain_sim import Ids
from unit.domain.one_job import start, trained

NOW_S = 5000.0
LOST_S = 3.0
"""Of profile ``fast``."""


@dataclass
class Moment:
    """A running job of two nodes with two workers each, all of them well; tests change what is seen of it."""

    state: JobState
    agents: list[AgentView]
    settled: bool = True

    def agent(self, index: int, **changes: Any) -> Moment:
        self.agents[index] = replace(self.agents[index], **changes)
        return self

    def worker(self, slot: int, **changes: Any) -> Moment:
        """Of what its agent tells of it."""
        return self._workers(slot, lambda one: replace(one, **changes))

    def progress(self, slot: int, **changes: Any) -> Moment:
        return self._workers(slot, lambda one: replace(one, progress=replace(one.progress, **changes)))

    def forgets(self, slot: int) -> Moment:
        """The agent tells nothing of it."""
        return self._workers(slot, lambda one: None)

    def _workers(self, slot: int, change: Callable[[WorkerObserved], WorkerObserved | None]) -> Moment:
        life = self.state.sole_island.slots[slot]
        for index, agent in enumerate(self.agents):
            if agent.agent_incarnation == life.agent_incarnation:
                told = (change(one) if one.incarnation == life.incarnation else one for one in agent.workers)
                self.agents[index] = replace(agent, workers=tuple(one for one in told if one is not None))
        return self

    def job(self, **changes: Any) -> Moment:
        self.state = replace(self.state, **changes)
        return self

    def island(self, **changes: Any) -> Moment:
        self.state = replace(self.state, islands=(replace(self.state.sole_island, **changes),))
        return self

    def slot(self, index: int, **changes: Any) -> Moment:
        island = self.state.sole_island
        slot = replace(island.slots[index], **changes)
        self.state = replace(self.state, islands=(island.with_slot(slot),))
        return self

    def newcomer(self, *states: SlotState) -> Moment:
        """Another node has joined; its workers are in these states."""
        slots = self.state.sole_island.slots
        place = {"node": "node-9", "agent_incarnation": 99}
        added = (
            replace(slots[-1], index=len(slots) + n, state=state, incarnation=900 + n, **place)  # type: ignore[arg-type]
            for n, state in enumerate(states)
        )
        return self.island(slots=(*slots, *added))

    @property
    def work(self) -> Work:
        view = ClusterView(agents=ListedAgents(self.agents), settled=self.settled)
        return Work(self.state, "island-0", view, {}, NOW_S, 1, Ids())

    @property
    def faults(self) -> tuple[Fault, ...]:
        return find_faults(self.work)

    @property
    def only(self) -> Fault:
        (fault,) = self.faults
        return fault


def quiet_moment() -> Moment:
    """Everybody is well, and was heard just now."""
    sim = start()
    trained(sim, 5)
    agents = [replace(one, last_heard_age_s=0.1, connected=True) for one in sim.view().agents]
    well = Moment(sim.state, agents)
    for slot in range(4):
        well.progress(slot, alive_age_s=0.0, phase_age_s=0.0)
    assert well.faults == ()
    return well
