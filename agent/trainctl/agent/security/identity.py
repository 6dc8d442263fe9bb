"""The agent's key and certificate, in a folder of its own; the key never leaves the machine."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trainctl.core.errors import PermissionDeniedError, PreconditionError
from trainctl.core.system.files import write_atomically
from trainctl.protos.unreadable import UNREADABLE

_LOG = logging.getLogger(__name__)
RENEWED_AFTER = 2 / 3
"""Part of its life after which a certificate is renewed, at the latest."""
_SPREAD = 0.1
"""Agents that joined together do not all renew at the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCertificate:
    """A certificate of this node.

    Attributes:
        pem: with its issuer's behind it.
        authority: PEM: whom to trust on the agents' port.
        begins_s: Unix time from which it counts as new: when this agent got it.
        ends_s: Unix time at which it expires.
        renewed_after: part of its life after which it is to be renewed.
    """

    pem: bytes
    authority: bytes
    begins_s: float
    ends_s: float
    renewed_after: float = RENEWED_AFTER

    @property
    def due_s(self) -> float:
        """Unix time at which it is to be renewed."""
        return self.begins_s + self.renewed_after * (self.ends_s - self.begins_s)


class Identity:
    """Who this agent is, as its folder says.

    Args:
        folder: only this agent's, made when it is needed.
        node: that it is to be.
        wall_s: Unix time.
    """

    def __init__(self, folder: Path, node: str, wall_s: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._node = node
        self._wall_s = wall_s
        self._earlier = random.uniform(0.0, _SPREAD)
        self.certificate = self._load()

    @property
    def key(self) -> bytes:
        """The private key, PEM.

        Raises:
            PermissionDeniedError: it cannot be read.
        """
        return self._read("agent.key")

    def valid(self) -> NodeCertificate | None:
        """The certificate, if there is one and it has not expired."""
        found = self.certificate
        return found if found is not None and self._wall_s() < found.ends_s else None

    def request(self) -> bytes:
        """A certificate request (PKCS #10, DER) of the agent's key, which is made if there is none.

        Raises:
            PermissionDeniedError: the folder cannot be read or written.
            PreconditionError: what is there is no key.
        """
        path = self._folder / "agent.key"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            form = serialization.PrivateFormat.PKCS8
            self._write("agent.key", key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        else:
            key = self._private_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._node)] if len(self._node) <= 64 else [])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.DER)

    def keep(self, certificate: bytes, authority: bytes) -> NodeCertificate:
        """Takes up what the controller signed.

        Raises:
            PreconditionError: it is not a certificate of this key and node.
        """
        found = self._understood(certificate, authority, self._wall_s())
        if found is None:
            raise PreconditionError("the controller's answer is no certificate of this node's key", hint="try again")
        self.certificate = found
        try:
            self._write("ca.crt", authority)
            self._write("agent.crt", certificate)
        except PermissionDeniedError as error:  # good for this life of the agent all the same
            _LOG.warning("the certificate is in use, but was not written down: %s", error)
        return found

    def _load(self) -> NodeCertificate | None:
        path = self._folder / "agent.crt"
        if not path.exists() or not (self._folder / "agent.key").exists():
            return None
        return self._understood(path.read_bytes(), self._read("ca.crt"), path.stat().st_mtime)

    def _understood(self, pem: bytes, authority: bytes, begins_s: float) -> NodeCertificate | None:
        """None if it is not a certificate of this key and this node: then another one is asked for."""
        try:
            first = x509.load_pem_x509_certificates(pem)[0]
            certified = first.public_key()
            names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            x509.load_pem_x509_certificates(authority)
        except (*UNREADABLE, x509.ExtensionNotFound):
            return None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if self._node not in [unquote(uri.rpartition("/")[2]) for uri in uris]:
            return None
        if certified != self._private_key().public_key():
            return None
        ends_s = first.not_valid_after_utc.timestamp()
        return NodeCertificate(
            pem=pem,
            authority=authority,
            begins_s=min(begins_s, ends_s),
            ends_s=ends_s,
            renewed_after=RENEWED_AFTER - self._earlier,
        )

    def _private_key(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self.key, password=None)
        except UNREADABLE as error:
            raise self._damaged() from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise self._damaged()
        return key

    def _damaged(self) -> PreconditionError:
        return PreconditionError(
            f"{self._folder / 'agent.key'}: expected this agent's private key, found something else",
            hint=f"remove the folder {self._folder} and join again with a new join token",
        )

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise PermissionDeniedError(
                f"{self._folder / name} cannot be read: {error.strerror}", hint="is it this user's?"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self._folder, 0o700)
            write_atomically(self._folder / name, data, mode=0o600)
        except OSError as error:
            raise PermissionDeniedError(
                f"{self._folder / name} cannot be written: {error.strerror}", hint="give another folder with --dir"
            ) from error
