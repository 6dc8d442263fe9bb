"""All that a controller which leads answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainctl.controller.access.token_book import TokenBook
from trainctl.controller.rpc.access_service import AccessService
from trainctl.controller.rpc.admission import Admission
from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.job_service import JobService
from trainctl.controller.rpc.join_service import JoinService, JoinTokenService

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.nodes import NodeCertificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers, and who is let in before it is asked.

    Attributes:
        nodes: whose certificates are good on the agents' port; None without TLS, when there is but one port.
    """

    jobs: JobService
    agents: AgentService
    access: AccessService
    tokens: TokenBook
    admission: Admission
    join: JoinService
    join_tokens: JoinTokenService
    nodes: NodeCertificates | None = None
