"""What a controller process has from its start to its end, whether it leads or stands by."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.checkpoint_files import CheckpointFiles, StoredFiles
from trainctl.controller.metrics.registry import ControllerMetrics, MetricsServer
from trainctl.controller.migrations import MIGRATIONS, Migration
from trainctl.controller.rpc.network import GrpcNetwork, Network
from trainctl.controller.settings import Settings
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.store.port import StateStore
from trainctl.core.system.clock import SystemClock
from trainctl.core.system.faults import FaultPlan
from trainctl.protos.version import package_version

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.tls import Tls


_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Shown:
    """The jobs that metrics show: those of the term in which this controller leads."""

    book: JobBook | None = None
    since_s: float = 0.0
    saves_in_flight: Mapping[str, int] = field(default_factory=dict[str, int])
    """By uid of the jobs that run; looked at now and then."""

    def begin(self, book: JobBook, since_s: float) -> None:
        """A term began; 0 where nobody else led before."""
        self.book, self.since_s = book, since_s

    def end(self) -> None:
        """It is over: what another one leads now is not this one's to show."""
        self.book, self.saves_in_flight = None, {}

    def states(self) -> Iterable[JobState]:
        """One job for each name."""
        return self.book.newest_by_name() if self.book is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The process-wide things: all that a controller takes from outside comes through here.

    Attributes:
        settings: how to run.
        who: host and process, for people.
        clock: time that never goes back.
        metrics: what is counted.
        metrics_address: where it is served.
        store: the state.
        network: where it listens.
        chance: of names that never come twice, and of pauses; nothing secret is made with it.
        faults: armed fault points.
        files: of the jobs' checkpoints.
        migrations: steps to the form in which this version writes the store.
        tls: how connections are encrypted; None: they are not.
        shown: whose jobs are shown.
    """

    settings: Settings
    who: str
    clock: SteadyClock
    metrics: ControllerMetrics
    metrics_address: str
    store: StateStore
    network: Network
    chance: random.Random
    faults: FaultPlan
    files: CheckpointFiles = field(default_factory=StoredFiles)
    migrations: tuple[Migration, ...] = MIGRATIONS
    tls: Tls | None = None
    shown: Shown = field(default_factory=Shown)

    @property
    def schema(self) -> int:
        """Number of the form in which this version writes the store."""
        return self.migrations[-1].to if self.migrations else 1

    def write_run_file(self, address: str) -> None:
        """Says in the folder where this controller listens.

        Raises:
            OSError: it cannot be written, and what is there does not say so already.
        """
        run = self.settings.run_dir
        authority = (self.tls.settings.authority or run.tls) / "ca.crt" if self.tls is not None else None
        where = local_address(address) if self.tls is not None else address
        try:
            run.write(
                address=where,
                ca_file=str(authority.absolute()) if authority is not None else "",
                secrets=str(self.settings.secrets) if self.settings.secrets is not None else "",
                metrics_address=self.metrics_address,
                version=package_version(),
                started_s=self.clock.now_s(),
            )
        except OSError as error:
            former = run.former()
            if former is None or (former.process.pid, former.address) != (os.getpid(), where):
                raise
            _log.error("%s cannot be written anew: %s", run.controller_file, error)


def local_address(address: str) -> str:
    """Where this machine reaches what listens at ``address``: no certificate is for all addresses at once."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "::", "[::]") else address


@asynccontextmanager
async def framed(settings: Settings) -> AsyncGenerator[Frame, None]:
    """Opens the store and serves metrics for as long as the block lasts.

    Raises:
        TrainctlError: the folder, the store or a port cannot be had.
    """
    settings.run_dir.prepare()
    shown, clock = Shown(), SteadyClock(SystemClock())
    metrics = ControllerMetrics(shown.states, clock.now_s, lambda: shown.since_s, lambda: shown.saves_in_flight)
    metrics.set("trainctl_build_info", 1, version=package_version())
    tls = _tls(settings)
    async with AsyncExitStack() as stack:
        store = await settings.store_address.open(
            on_request=lambda op, seconds: metrics.observe("trainctl_store_request_seconds", seconds, op=op)
        )
        stack.push_async_callback(store.close)
        server = MetricsServer(metrics, settings.metrics_host or settings.host, settings.metrics_port)
        stack.push_async_callback(asyncio.to_thread, server.close)
        yield Frame(
            settings=settings,
            who=f"{socket.gethostname()}:{os.getpid()}",
            clock=clock,
            metrics=metrics,
            metrics_address=server.address,
            store=store,
            network=GrpcNetwork(settings.run_dir.token, metrics, tls),
            tls=tls,
            chance=random.SystemRandom(),
            faults=FaultPlan(),
            shown=shown,
        )


def _tls(settings: Settings) -> Tls | None:
    if settings.tls is None:
        return None
    from trainctl.controller.security.tls import prepare_tls

    hosts = [settings.host, *([settings.advertise.rpartition(":")[0]] if settings.advertise else [])]
    return prepare_tls(settings.tls, settings.run_dir.tls, hosts, SystemClock().wall_s)
