"""Controller processes: the real code, from standing by to leading, on a store, a network and a clock of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from simulation.network import Network, SimNetwork
from simulation.virtual_loop import KilledError, Process
from simulation.virtual_store import StoreClient, StoreLink, VirtualStore
from trainctl.controller import keys
from trainctl.controller.app import take_turns
from trainctl.controller.frame import Frame, Shown
from trainctl.controller.installation import SCHEMA
from trainctl.controller.jobs.checkpoint_files import CheckpointFiles
from trainctl.controller.metrics.registry import ControllerMetrics
from trainctl.controller.migrations import MIGRATIONS, Migration
from trainctl.controller.run_dir import RunDir
from trainctl.controller.settings import Settings
from trainctl.controller.steady_clock import SteadyClock
from trainctl.core.system.faults import FaultPlan

PORT = 7000
START_AGAIN_S = 1.0
WALL_AT_ZERO_S = 1_700_000_000.0
TOKEN = "simulated"
COUNTED = "counted"


def counted(key: str, value: Any) -> Any:
    """Shows how often it was carried out; on values that nobody writes again."""
    return value | {COUNTED: value.get(COUNTED, 0) + 1} if "/members/" in key else value


LATER = (*MIGRATIONS, Migration(to=SCHEMA + 1, what="records are counted", prefix=keys.JOBS, change=counted))
"""What a version knows that does not exist yet; otherwise it is today's, so what it writes has no mark."""


class LoopClock:
    """Implements ``Clock``: the time of the loop."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time

    def monotonic_s(self) -> float:
        return self._time()

    def wall_s(self) -> float:
        return WALL_AT_ZERO_S + self._time()


class KillPoints(FaultPlan):
    """Named places in the controller at which its process dies, once armed."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill
        self.armed = ""
        self.passes = 0

    def arm(self, point: str, passes: int) -> None:
        """Lets it go by so often, then dies there."""
        self.armed, self.passes = point, passes

    def reach(self, point: str, **context: object) -> None:
        if point != self.armed:
            return
        if self.passes:
            self.passes -= 1
            return
        self.armed = ""
        self._kill()
        raise KilledError


class ControllerHost:
    """A machine with a controller that is started again whenever it ends.

    Args:
        name: of the machine.
        folder: for its files, and those of the jobs.
        store: that all share.
        network: that all share.
        chance: of names and pauses.
        lease_ttl_s: of a leader.
        files: of the jobs' checkpoints.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        store: VirtualStore,
        network: Network,
        chance: Random,
        lease_ttl_s: float,
        files: CheckpointFiles,
    ) -> None:
        self.name = name
        self.address = f"{name}:{PORT}"
        self.link = StoreLink()
        self.process = Process(name)
        self.ends: list[str] = []
        self.graves: list[Process] = []
        self.store = store
        self.wanted = True
        self.release = MIGRATIONS
        """What the next life of it knows of the store's forms."""
        self.schemas: dict[str, int] = {}
        """Of each life, by the name of its process."""
        self._lives = 0
        self._network = network
        self._chance = chance
        self._lease_ttl_s = lease_ttl_s
        self._files = files
        self._run_dir = RunDir(folder / name)
        self._jobs = folder / "jobs"
        self._points: KillPoints | None = None
        self._client: StoreClient | None = None
        self._stop: asyncio.Event | None = None
        self._run_dir.root.mkdir(parents=True)
        self._run_dir.token_file.write_text(TOKEN)

    @property
    def refuses(self) -> bool:
        """Its newest life ended because the store is older than it was left."""
        return self._client is None and bool(self.ends) and "OldStoreError" in self.ends[-1]

    def start(self, *, accept: bool = False) -> None:
        """A new process, unless one runs; with ``accept`` it takes the store as it is."""
        if self._client is not None or not self.wanted:
            return
        self._lives += 1
        self.process = Process(f"{self.name}#{self._lives}")
        self._client = StoreClient(self.store, self.process.name, self.link)
        self._points = KillPoints(self.kill)
        self.schemas[self.process.name] = self.release[-1].to
        self._stop = asyncio.Event()
        task = self.process.spawn(take_turns(self._frame(self._client, self._points, accept=accept), self._stop))
        task.add_done_callback(lambda done, process=self.process: self._ended(done, process))  # type: ignore[misc]

    def kill(self) -> None:
        """SIGKILL."""
        if self._client is None:
            return
        self._client.closed = True
        self._client = None
        self.process.kill()
        self.graves.append(self.process)
        self._network.bury(self.process)

    def end(self) -> None:
        """SIGTERM."""
        if self._stop is not None and self._client is not None:
            self.process.call(self._stop.set)

    def arm(self, point: str, passes: int) -> None:
        """Lets it die at a named place."""
        if self._points is not None:
            self._points.arm(point, passes)

    async def bury(self) -> None:
        """Lets nothing of any life be left."""
        self.wanted = False
        self.kill()
        for process in self.graves:
            await process.bury()

    def _frame(self, client: StoreClient, points: KillPoints, *, accept: bool) -> Frame:
        shown, clock = Shown(), SteadyClock(LoopClock())
        settings = Settings(
            run_dir=self._run_dir,
            host=self.name,
            port=PORT,
            jobs=self._jobs,
            lease_ttl_s=self._lease_ttl_s,
            accept_store=accept,
        )
        metrics = ControllerMetrics(shown.states, clock.now_s, lambda: shown.since_s)
        return Frame(
            settings=settings,
            who=self.process.name,
            clock=clock,
            metrics=metrics,
            metrics_address="",
            store=client,
            network=SimNetwork(self._network, self.process),
            chance=self._chance,
            faults=points,
            migrations=self.release,
            files=self._files,
            shown=shown,
        )

    def _ended(self, task: asyncio.Task[None], process: Process) -> None:
        """It ended by itself: because it was asked to, or because something made it; then it is started again."""
        if process.dead or process is not self.process:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.ends.append(f"{process.name}: {type(error).__name__}: {error}")
        self._client = None
        process.kill()
        self.graves.append(process)
        self._network.bury(process)
        asyncio.get_running_loop().call_later(START_AGAIN_S, self.start)
