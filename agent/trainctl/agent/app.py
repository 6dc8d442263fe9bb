"""The agent process: puts the pieces together, and ends them in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainctl.agent.accelerators import accelerator_count, device_of_slots
from trainctl.agent.conversation import Node
from trainctl.agent.forkserver.client import ForkServerClient
from trainctl.agent.link import ControllerLink
from trainctl.agent.logs.archive import LogArchive
from trainctl.agent.logs.store import LogStore
from trainctl.agent.logs.streams import LogStreams
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, Report, ReportsOutbox
from trainctl.agent.security.calling import Calling, CertifiedCalling, PlainCalling
from trainctl.agent.security.trust import Given
from trainctl.agent.snapshot_memory import SnapshotRoom
from trainctl.agent.store_keeper import StoreKeeper
from trainctl.agent.supervisor import Supervisor
from trainctl.agent.worker import WorkerEvents
from trainctl.core.errors import PermissionDeniedError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.core.system.given_files import TOKEN_BYTES, read_given
from trainctl.protos.v1 import agent_pb2
from trainctl.protos.version import WIRE_VERSION, package_version

_LOG = logging.getLogger(__name__)
_WATCH_S = 1.0
_GOODBYE_S = 0.1
_KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What an agent is started with.

    Attributes:
        controllers: ``host:port`` of each.
        node: name of this machine in the cluster.
        slots: workers it takes.
        first_local_rank: number of its first worker, where several agents share a machine and its accelerators.
        folder: its own folder, for logs and caches.
        token_file: holds the bearer token; None sends an empty one.
        given: for certificates.
        address: under which other nodes reach this one.
        metrics_port: of ``/metrics``; 0 takes a free one.
        insecure: with certificates, ``/metrics`` is served to other machines all the same, though not encrypted.
        secrets: folder of the values that jobs want by name, one file each; None: there are none.
        memory: folder on a memory file system, for snapshots; None: this node keeps none.
        disk: folder on a disk of this machine, for snapshots; None: this node keeps none there.
        failure_domain: what this machine fails together with; empty: with no other one.
        entry: ``module:function`` that a worker runs.
        store_entry: ``module:function`` that the collective store runs.
        preload: modules that the fork server imports.
        fork_server: socket of a fork server that the agents of this machine share; None: it has one of its own.
    """

    controllers: tuple[str, ...]
    node: str
    slots: int
    first_local_rank: int
    folder: Path
    token_file: Path | None
    given: Given
    address: str
    metrics_port: int
    insecure: bool = False
    secrets: Path | None = None
    memory: Path | None = None
    disk: Path | None = None
    failure_domain: str = ""
    entry: str
    store_entry: str
    preload: tuple[str, ...]
    fork_server: Path | None = None

    @property
    def tls_folder(self) -> Path:
        """Where its key and certificate lie."""
        return self.folder / "tls"

    @property
    def certified(self) -> bool:
        """Whether it talks over TLS: it was told whom to trust or how to join, or has joined before."""
        given = self.given.ca_file is not None or self.given.join_token_file is not None
        return given or (self.tls_folder / "agent.crt").exists()


class Agent:
    """One agent life; make it inside a running event loop, then ``run`` it."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._token = self._read_token()
        self._ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._orphaned = False
        self._metrics = AgentMetrics()
        self._figures = FiguresOutbox()
        self._reports = ReportsOutbox()
        self._logs = LogStore(options.folder / "logs", beside=(options.folder / "commands",))
        self._archive = LogArchive()
        self._logs.follow(self._archive.take)
        self._server = ForkServerClient(
            preload=options.preload,
            shared=options.fork_server,
            on_change=lambda: self._supervisor.reconcile(),
            on_restart=lambda: self._metrics.process_restarts.labels("forkserver").inc(),
        )
        self._store = StoreKeeper(
            server=self._server,
            entry=options.store_entry,
            host=options.address,
            on_change=lambda: self._link.changed(),
            on_restart=lambda: self._metrics.process_restarts.labels("store").inc(),
        )
        self._memory = SnapshotRoom(options.memory, options.disk, time.monotonic())
        self._supervisor = Supervisor(
            server=self._server,
            logs=self._logs,
            entry=options.entry,
            node=options.node,
            node_dir=str(options.folder),
            first_local_rank=options.first_local_rank,
            secrets=options.secrets,
            memory=self._memory.of,
            failure_domain=options.failure_domain,
            events=WorkerEvents(
                changed=lambda: self._link.changed(), figures=self._take_figures, report=self._take_report
            ),
            metrics=self._metrics,
        )
        self._link = self._make_link()
        self._metrics.watch(
            census=self._supervisor.census,
            figures_pending=lambda: self._figures.pending,
            figures_dropped=lambda: self._figures.dropped,
            log_bytes=lambda: self._logs.written_bytes,
            log_lost_lines=lambda: self._logs.lost_lines,
        )

    async def run(self) -> None:
        """Serves until a signal ends it, or no controller came for too long; then no worker is left.

        Raises:
            TrainctlError: the controller refuses this agent.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        parts: tuple[Coroutine[Any, Any, None], ...] = (
            self._server.run(), self._store.run(), self._link.run(), self._watch()
        )  # fmt: skip
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._ending]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._stop_in_order()
        finally:
            self._supervisor.condemn_all()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._server.close()
            await self._logs.close()
            await asyncio.sleep(0)  # the last lines are handed to their followers
            await asyncio.to_thread(self._archive.close)
            await asyncio.to_thread(self._memory.close)

    def _make_link(self) -> ControllerLink:
        options = self._options
        metrics_host = "127.0.0.1" if options.certified and not options.insecure else options.address
        port = self._metrics.serve(metrics_host, options.metrics_port)
        registration = agent_pb2.RegisterRequest(
            node=options.node,
            address=options.address,
            pid=os.getpid(),
            slots=options.slots,
            version=package_version(),
            wire_version=WIRE_VERSION,
            metrics_address=f"{metrics_host}:{port}",
            device=device_of_slots(options.slots, options.first_local_rank, accelerator_count()),
            failure_domain=options.failure_domain,
        )
        node = Node(
            observe=self._supervisor.observe,
            store_address=lambda: self._store.address,
            set_desired=self._set_desired,
            forget_jobs=self._forget_jobs,
        )
        link = ControllerLink(
            targets=options.controllers,
            calling=self._make_calling(),
            registration=registration,
            node=node,
            forget_all=self._forget_all,
            figures=self._figures,
            reports=self._reports,
            metrics=self._metrics,
        )
        link.serve_logs(LogStreams(self._logs, link.wake))
        return link

    def _make_calling(self) -> Calling:
        options = self._options
        if not options.certified:
            return PlainCalling(self._read_token)
        from trainctl.agent.security.identity import Identity  # what makes certificates is loaded where they are used

        return CertifiedCalling(Identity(options.tls_folder, options.node), options.given, options.node)

    def _set_desired(self, desired: Sequence[WorkerDesired]) -> None:
        self._archive.know(desired)
        self._memory.know(desired, time.monotonic())
        if not self._ending.done():  # once it ends, it takes no new work
            self._supervisor.set_desired(desired)

    def _forget_jobs(self, job_uids: Sequence[str]) -> None:
        self._archive.forget(job_uids)
        self._logs.remove(job_uids)
        self._memory.forget(job_uids)

    async def _forget_all(self) -> None:
        self._supervisor.condemn_all()
        await self._supervisor.wait_ended()
        self._supervisor.reconcile()

    def _take_figures(self, job_uid: str, figures: tuple[StepFigures, ...]) -> None:
        """One goes out behind the next observation: a message for each step would cost the workers time."""
        self._figures.add(job_uid, figures)
        if len(figures) > 1 or self._ending.done():
            self._link.wake()

    def _take_report(self, report: Report) -> None:
        self._reports.add(report)
        self._link.wake()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._ending.done():
            _LOG.warning("second signal: ending all workers at once")
            self._supervisor.condemn_all()
        else:
            self._ending.set_result(f"{number.name} received")

    async def _watch(self) -> None:
        """Weighs the workers, and notices that no controller came for too long."""
        while True:
            await asyncio.sleep(_WATCH_S)
            self._supervisor.weigh()
            self._memory.sweep(self._supervisor.desired, time.monotonic())
            if self._link.silent_s() > self._link.orphan_timeout_s and not self._ending.done():
                self._orphaned = True
                self._ending.set_result(f"no controller for {self._link.orphan_timeout_s:g} s")

    async def _stop_in_order(self) -> None:
        """Says goodbye, and waits for the workers; those that do not stop in their time are killed."""
        reason = self._ending.result()
        _LOG.info("the agent ends: %s", reason)
        self._link.say_goodbye(reason)
        await asyncio.sleep(_GOODBYE_S)
        desired: Sequence[WorkerDesired] = ()
        if self._orphaned:
            desired = [
                replace(each, instruction=Instruction.STOP, checkpoint_on_stop=True)
                for each in self._supervisor.desired
                if each.instruction is not Instruction.KILL
            ]
        self._supervisor.set_desired(desired)
        await self._supervisor.wait_ended()
        self._link.wake()  # the workers' last words
        await asyncio.sleep(_GOODBYE_S)

    def _read_token(self) -> str:
        """The token as it is now; a file that vanished, or is no token, meanwhile leaves the one read before."""
        if self._options.token_file is None:
            return ""
        try:
            return read_given(self._options.token_file, TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeError) as error:
            former = getattr(self, "_token", "")
            if former:
                return former
            reason = error.strerror if isinstance(error, OSError) else "not a token"
            raise PermissionDeniedError(
                f"token file {self._options.token_file} cannot be read: {reason}",
                hint="it is made by the controller and readable by its user only",
            ) from error
