"""Who is at the other end of a connection with certificates, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from trainctl.protos.unreadable import UNREADABLE

TRUST_DOMAIN = "spiffe://trainctl/"
_AGENT = "/agent/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What the certificate of an agent says.

    Attributes:
        node: whose agent it is.
        key: SHA-256 of its public key, hexadecimal.
        begins_s: Unix time from which it is good.
        ends_s: Unix time at which it expires.
    """

    node: str
    key: str
    begins_s: float
    ends_s: float


def agent_uri(installation: str, node: str) -> str:
    """The name of an agent in its certificate."""
    return f"{TRUST_DOMAIN}{quote(installation, safe='')}{_AGENT}{quote(node, safe='')}"


def key_digest(key: CertificatePublicKeyTypes) -> str:
    """What can be written down of a public key: SHA-256, hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest.update(key.public_bytes(serialization.Encoding.DER, form))
    return digest.finalize().hex()


def peer_of(auth_context: Mapping[str, Iterable[bytes]]) -> Peer | None:
    """The agent that the client's certificate names; None if there is no such certificate.

    gRPC has verified at the handshake who issued it. Which installation its name says is not looked at: the
    controller knows the keys of its nodes (``NodeCertificates``), and has none of another installation's among them.
    """
    for pem in auth_context.get("x509_pem_cert", ()):
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            key = key_digest(certificate.public_key())
        except (*UNREADABLE, x509.ExtensionNotFound):
            return None
        nodes = [node for uri in found.get_values_for_type(x509.UniformResourceIdentifier) if (node := _node_of(uri))]
        if len(nodes) != 1:
            return None
        return Peer(
            node=nodes[0],
            key=key,
            begins_s=certificate.not_valid_before_utc.timestamp(),
            ends_s=certificate.not_valid_after_utc.timestamp(),
        )
    return None


def _node_of(uri: str) -> str:
    installation, found, node = uri.removeprefix(TRUST_DOMAIN).partition(_AGENT)
    right = uri.startswith(TRUST_DOMAIN) and found and "/" not in installation + node
    return unquote(node) if right else ""
