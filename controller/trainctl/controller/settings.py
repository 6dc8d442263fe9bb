"""How a controller is to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainctl.controller.access.limits import Limits
from trainctl.controller.cluster.port import AgentRequest
from trainctl.controller.leadership import LEASE_TTL_S
from trainctl.controller.run_dir import RunDir
from trainctl.controller.store.opening import StoreAddress
from trainctl.controller.tls_settings import TlsSettings
from trainctl.core.timeouts import Timeouts

ORPHAN_TIMEOUT_S = Timeouts.for_profile("balanced").orphan_s
AgentCommand = Callable[[AgentRequest, Path, str], Sequence[str]]
"""From a request, the node's folder and the controller's address to an agent's command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        run_dir: the controller's folder.
        host: to listen on.
        port: to listen on; 0: the former one of this folder, or any.
        advertise: ``host:port`` where others reach this controller; empty: where it listens.
        metrics_host: where /metrics is served, which is never encrypted; empty: on ``host``.
        metrics_port: 0: any.
        agents: local agents to keep running.
        slots: workers that each of them takes.
        jobs: folder of the jobs' work folders, alike on all controllers of an installation; None: in the folder.
        store: where the state is; None: a file in the folder.
        accept_store: act on the store although it is older than it was left, or another installation's.
        lease_ttl_s: how long a leader that says nothing is waited for, where several share a store.
        secrets: folder that local agents read the values of ``spec.secretEnv`` from; None: they have none.
        orphan_timeout_s: agents end their workers after so long without any controller.
        limits: how often callers may call, and how many streams they may hold.
        tls: how connections are encrypted; None: they are not.
        respawn_delay_s: pause before a dead agent is started again.
        agent_command: how agents are started.
    """

    run_dir: RunDir
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    metrics_host: str = ""
    metrics_port: int = 0
    agents: int = 0
    slots: int = 1
    jobs: Path | None = None
    store: StoreAddress | None = None
    accept_store: bool = False
    lease_ttl_s: float = LEASE_TTL_S
    secrets: Path | None = None
    orphan_timeout_s: float = ORPHAN_TIMEOUT_S
    limits: Limits = field(default_factory=Limits)
    tls: TlsSettings | None = None
    respawn_delay_s: float = 0.2
    agent_command: AgentCommand | None = None

    @property
    def jobs_folder(self) -> Path:
        """Where each job gets a work folder."""
        return self.jobs or self.run_dir.jobs

    @property
    def store_address(self) -> StoreAddress:
        """Where the state is."""
        return self.store or StoreAddress(self.run_dir.store_file)
