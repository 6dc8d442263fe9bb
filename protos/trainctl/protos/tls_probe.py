"""Looks at what listens at an address, with plain sockets: gRPC only says that nobody answers."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainctl.core.system.deadline import Deadline

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PROBE_S = 3.0
"""For all steps together, which are two connections with a handshake each."""
_ANSWER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The certificate that a server showed.

    Attributes:
        names: host names and addresses that it is for.
        issuer: who signed it.
        begins_s, ends_s: Unix times from and to which it is good.
    """

    names: tuple[str, ...]
    issuer: str
    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the probe saw.

    Attributes:
        connected: somebody listens, and says something.
        speaks_tls: and answers a TLS handshake.
        shown: its certificate, if it speaks TLS.
        verify_code: of OpenSSL, why the certificate is not trusted; 0: it is, or nobody asked.
        verify_text: the same in words.
        alert: what the server said of our side, in OpenSSL's words; empty: nothing bad.
    """

    connected: bool
    speaks_tls: bool = False
    shown: Shown | None = None
    verify_code: int = 0
    verify_text: str = ""
    alert: str = ""


def probe(
    target: str,
    *,
    ca: bytes | None = None,
    certificate: bytes | None = None,
    key: bytes | None = None,
    within_s: float = PROBE_S,
) -> Seen:
    """Connects to ``host:port``, first trusting nobody and then, with ``ca`` (PEM), as a client would.

    Who takes longer than ``within_s`` to answer is taken for frozen.
    """
    deadline = Deadline(within_s)
    host, _, port = target.rpartition(":")
    address = (host.strip("[]"), int(port))
    open_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    open_context.check_hostname, open_context.verify_mode = False, ssl.CERT_NONE
    open_context.set_alpn_protocols(["h2"])
    try:
        connection = socket.create_connection(address, timeout=within_s)
    except OSError:
        return Seen(connected=False)
    with connection:
        connection.settimeout(_left_s(deadline))
        try:
            with open_context.wrap_socket(connection, server_hostname=_server_name(address[0])) as wrapped:
                shown = _shown(wrapped.getpeercert(binary_form=True))
        except ssl.SSLError as error:
            if "ALERT" not in (error.reason or ""):
                return Seen(connected=True)
            shown = None  # with TLS 1.2 whoever wants to see our certificate says so in the middle of the handshake
        except TimeoutError:  # frozen, or no server at all: that says nothing about certificates
            return Seen(connected=False)
        except OSError:
            return Seen(connected=True)
    if ca is None:
        return Seen(connected=True, speaks_tls=True, shown=shown)
    code, text, alert = _as_client(address, ca, certificate, key, deadline)
    return Seen(connected=True, speaks_tls=True, shown=shown, verify_code=code, verify_text=text, alert=alert)


def _as_client(
    address: tuple[str, int], ca: bytes, certificate: bytes | None, key: bytes | None, deadline: Deadline
) -> tuple[int, str, str]:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        context.load_verify_locations(cadata=ca.decode("ascii"))
        if certificate is not None and key is not None:
            _load(context, certificate + key)
    except (ssl.SSLError, ValueError) as error:
        return -1, f"the certificates of this side cannot be read: {error}", ""
    try:
        with (
            socket.create_connection(address, timeout=_left_s(deadline)) as connection,
            context.wrap_socket(connection, server_hostname=_server_name(address[0])) as wrapped,
        ):
            # With TLS 1.3 a server refuses our certificate only after the handshake, and gRPC's hangs up in silence;
            # one that takes us begins with its settings.
            wrapped.settimeout(min(_ANSWER_S, _left_s(deadline)))
            with contextlib.suppress(TimeoutError):
                return 0, "", "" if wrapped.recv(1) else "it hung up"
    except ssl.SSLCertVerificationError as error:
        return error.verify_code, error.verify_message, ""
    except ssl.SSLError as error:
        return 0, "", error.reason or str(error)
    except OSError as error:
        return 0, "", error.strerror or str(error)
    return 0, "", ""


def _left_s(deadline: Deadline) -> float:
    """Time-out of the next step; never 0, which would mean not to wait at all."""
    return max(0.01, deadline.left_s)


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL reads a client's certificate from a file only: one in memory, that nobody else can open."""
    descriptor = os.memfd_create("certificate")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _server_name(host: str) -> str:
    """IPv6 addresses in their one form, as certificates are compared with."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def life_of(pem: bytes | None) -> tuple[float, float] | None:
    """From and to when the first of some certificates is good, Unix times; None if it cannot be read."""
    from cryptography import x509

    from trainctl.protos.unreadable import UNREADABLE

    try:
        first = x509.load_pem_x509_certificates(pem or b"")[0]
        return first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
    except UNREADABLE:
        return None


def _shown(der: bytes | None) -> Shown | None:
    if not der:
        return None
    from cryptography import x509  # only where something went wrong, or somebody wants to know

    from trainctl.protos.unreadable import UNREADABLE

    try:
        found = x509.load_der_x509_certificate(der)
        names = _names(found)
    except UNREADABLE:
        return None
    return Shown(
        names=names,
        issuer=found.issuer.rfc4514_string(),
        begins_s=found.not_valid_before_utc.timestamp(),
        ends_s=found.not_valid_after_utc.timestamp(),
    )


def _names(certificate: Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
