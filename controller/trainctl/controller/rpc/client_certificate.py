"""Who calls on the agents' port: the client's certificate says it, and the controller knows its nodes' keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.controller.access.caller import Caller, Kind
from trainctl.controller.security.nodes import NodeCertificates


class ClientCertificate:
    """Implements ``Authenticate`` by the certificate of the connection; a token in the metadata counts for nothing.

    Args:
        nodes: knows them.
    """

    def __init__(self, nodes: NodeCertificates) -> None:
        self._nodes = nodes

    def __call__(self, metadata: Mapping[str, Any], context: Any) -> Caller:
        """See ``Authenticate``.

        Raises:
            UnauthenticatedError: the certificate names no node.
            CertificateRefusedError: it is not, or no longer, its node's.
        """
        peer = self._nodes.peer(context.auth_context())
        return Caller(kind=Kind.AGENT, name=peer.node, expires_s=peer.ends_s)
