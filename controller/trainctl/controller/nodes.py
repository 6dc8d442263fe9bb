"""Keeping the cluster's agents running: level-triggered, through an outbox of intents in the store."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from trainctl.controller import keys
from trainctl.controller.cluster.port import AgentProcess, AgentRequest, Cluster
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import Delete, Put, StateStore
from trainctl.core.clock import Clock
from trainctl.core.errors import TrainctlError
from trainctl.core.pauses import doubled_s

_log = logging.getLogger(__name__)
LOOK_EVERY_S = 5.0
"""Safety net behind the cluster's own notices."""
SHORT_LIFE_S = 10.0
LONGEST_DELAY_S = 30.0
"""An agent that keeps dying at once is started ever more slowly."""


class NodeKeeper:
    """Every node of the inventory has an agent; one that died is started again after ``respawn_delay_s``.

    The delay doubles with each short life in a row, up to ``LONGEST_DELAY_S``.
    The decision to create is written as an intent first and taken out when it is done: a controller that dies between
    finds it and repeats the creation, which has no second effect.
    """

    def __init__(
        self, cluster: Cluster, store: StateStore, leadership: Leadership, clock: Clock, *, respawn_delay_s: float,
        seen: Callable[[tuple[AgentProcess, ...]], None],
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._store = store
        self._leadership = leadership
        self._clock = clock
        self._respawn_delay_s = respawn_delay_s
        self._seen = seen
        self._wake = asyncio.Event()
        self._dead_since_s: dict[str, float] = {}
        self._created_s: dict[str, float] = {}
        self._short_lives: Counter[str] = Counter()
        self.intents_pending = 0
        cluster.on_change(self._wake.set)

    async def observe(self) -> tuple[AgentProcess, ...]:
        """Looks at the processes and tells what it saw."""
        processes = await self._cluster.observe()
        self._seen(processes)
        return processes

    async def run(self) -> None:
        """Works until cancelled."""
        intents = await self._store.range(keys.INTENTS)
        self._dead_since_s = {item.key.removeprefix(keys.INTENTS): float("-inf") for item in intents.items}
        self.intents_pending = len(intents.items)
        while True:
            self._wake.clear()
            pause_s = await self._pass()
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _pass(self) -> float:
        """Creates what is missing and due; returns the seconds until there is something to do again."""
        known = {process.node: process for process in await self.observe()}
        now_s = self._clock.monotonic_s()
        pause_s = LOOK_EVERY_S
        for request in await self._cluster.inventory():
            process = known.get(request.node)
            if process is not None and process.alive:
                self._dead_since_s.pop(request.node, None)
                continue
            if request.node not in self._dead_since_s:
                self._note_death(request.node, now_s if process is not None else float("-inf"))
            left_s = self._dead_since_s[request.node] + self._delay_s(request.node) - now_s
            if left_s > 0:
                pause_s = min(pause_s, left_s)
            elif not await self._create(request):
                pause_s = min(pause_s, 1.0)
        return pause_s

    def _note_death(self, node: str, at_s: float) -> None:
        self._dead_since_s[node] = at_s
        if at_s - self._created_s.get(node, float("-inf")) < SHORT_LIFE_S:
            self._short_lives[node] += 1
        else:
            self._short_lives[node] = 0

    def _delay_s(self, node: str) -> float:
        return doubled_s(self._respawn_delay_s, self._short_lives[node], LONGEST_DELAY_S)

    async def _create(self, request: AgentRequest) -> bool:
        key = keys.intent(request.node)
        try:
            await self._leadership.txn((), (Put(key, keys.encode({"create": request.node, "slots": request.slots})),))
            self.intents_pending += 1
            process = await self._cluster.create(request)
            await self._leadership.txn((), (Delete(key),))
        except TrainctlError as error:
            _log.error("agent of %s cannot be started: %s", request.node, error, extra={"hint": error.hint})
            return False
        finally:
            self.intents_pending = len((await self._store.range(keys.INTENTS)).items)
        _log.info("started the agent of %s", request.node, extra={"node": request.node, "pid": process.pid})
        self._dead_since_s.pop(request.node, None)
        self._created_s[request.node] = self._clock.monotonic_s()
        await self.observe()
        return True
