"""``JoinService`` for machines that are to become nodes, ``JoinTokenService`` for those who let them in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from trainctl.core.errors import PreconditionError
from trainctl.protos.v1 import join_pb2, join_pb2_grpc

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.join_tokens import JoinToken
    from trainctl.controller.security.nodes import NodeCertificates

_log = logging.getLogger(__name__)
Context = Any


class NoTlsError(PreconditionError):
    """Something about certificates was asked of a controller that has none."""

    code = "TLS_OFF"


class JoinService(join_pb2_grpc.JoinServiceServicer):
    """Needs no bearer token: Join looks at its join token, Locate tells no secret.

    Args:
        nodes: lets machines in; None without TLS.

    Attributes:
        agents_address: where sessions are opened, without a host if that is the one that was asked.
    """

    def __init__(self, nodes: NodeCertificates | None) -> None:
        self._nodes = nodes
        self.agents_address = ""

    async def Join(self, request: join_pb2.JoinRequest, context: Context) -> join_pb2.JoinResponse:  # noqa: N802
        """A certificate for a machine with a join token."""
        nodes = _with_tls(self._nodes)
        certificate = await nodes.join(request.node, request.certificate_request, request.token)
        _log.info("%s joined", request.node, extra={"node": request.node, "token": request.token.partition(".")[0]})
        return join_pb2.JoinResponse(certificate=certificate, authority=nodes.authority.pem)

    async def Locate(self, request: join_pb2.LocateRequest, context: Context) -> join_pb2.LocateResponse:  # noqa: N802
        """Where agents open their sessions."""
        _with_tls(self._nodes)
        return join_pb2.LocateResponse(agents_address=self.agents_address)


class JoinTokenService(join_pb2_grpc.JoinTokenServiceServicer):
    """Join tokens: made, shown without their secret, taken back."""

    def __init__(self, nodes: NodeCertificates | None) -> None:
        self._nodes = nodes

    async def CreateJoinToken(  # noqa: N802
        self, request: join_pb2.CreateJoinTokenRequest, context: Context
    ) -> join_pb2.CreateJoinTokenResponse:
        """A new one; its secret is in the answer and nowhere else."""
        nodes = _with_tls(self._nodes)
        token, text = await nodes.create_token(node=request.node, ttl_s=request.ttl_s, uses=request.uses or 1)
        _log.info("join token made", extra={"token": token.id, "node": token.node or "any"})
        return join_pb2.CreateJoinTokenResponse(token=_shown(token), text=text)

    async def ListJoinTokens(  # noqa: N802
        self, request: join_pb2.ListJoinTokensRequest, context: Context
    ) -> join_pb2.ListJoinTokensResponse:
        """All of them."""
        tokens = await _with_tls(self._nodes).tokens()
        return join_pb2.ListJoinTokensResponse(tokens=[_shown(token) for token in tokens])

    async def RevokeJoinToken(  # noqa: N802
        self, request: join_pb2.RevokeJoinTokenRequest, context: Context
    ) -> join_pb2.RevokeJoinTokenResponse:
        """Nobody joins with it any more."""
        return join_pb2.RevokeJoinTokenResponse(token=_shown(await _with_tls(self._nodes).revoke(request.id)))


def _with_tls(nodes: NodeCertificates | None) -> NodeCertificates:
    if nodes is None:
        raise NoTlsError(
            "this controller has no TLS, so nodes neither need nor get certificates",
            hint="start it with --tls; agents on its own machine need no join token without it",
        )
    return nodes


def _shown(token: JoinToken) -> join_pb2.JoinToken:
    return join_pb2.JoinToken(
        id=token.id,
        node=token.node,
        expires_s=token.expires_s,
        create_time_s=token.created_s,
        uses_left=token.uses_left,
        revoked=token.revoked,
    )
