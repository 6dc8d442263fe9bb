"""One agent life as the controller knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainctl.controller.agents.session import AgentSession
from trainctl.core.records.worker import WorkerObserved
from trainctl.protos.v1 import records_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an agent said of itself (message ``RegisterRequest``); kept in the store under its node."""

    node: str
    address: str = ""
    pid: int = 0
    slots: int = 0
    version: str = ""
    metrics_address: str = ""
    device: str = ""
    failure_domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMark:
    """What an operator said of a node; it outlives its agents.

    Attributes:
        cordoned: it gets no new work.
        draining: its workers are moved away, too.
    """

    cordoned: bool = False
    draining: bool = False


@dataclass(slots=True)
class Agent:
    """One agent life; the newest of its node.

    Attributes:
        told: it may know of this leader, because it registered with it or has had a session.
        attended: messages of it that are being dealt with.
        excused_s: how much of its silence is not held against it.
    """

    registration: Registration
    incarnation: int
    heard_s: float
    told: bool = False
    attended: int = 0
    excused_s: float = 0.0
    session: AgentSession | None = None
    reported: bool = False
    process_exited: bool = False
    store_address: str = ""
    workers: tuple[WorkerObserved, ...] = ()
    said: Sequence[records_pb2.WorkerObserved] = ()
    """What ``workers`` were read from: most heartbeats say the same again."""
    jobs: set[str] = field(default_factory=set[str])
    """Uids of those that it was told to run, since this controller leads."""
    unknown: set[str] = field(default_factory=set[str])
    """What it said that this version does not know, as far as the log has it."""
    certificate_ends_s: float = 0.0
    """Unix time at which the certificate of its newest session expires; 0: it needs none."""
