"""Until when the certificates are good that a connection to a controller hangs on."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.cli.connection.connecting import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Unix times at which they expire.

    Attributes:
        controller: the one that the controller shows.
        authority: of whoever signed that, as this side trusts it.
    """

    controller: float
    authority: float


def look_at(endpoint: Endpoint) -> Certificates | None:
    """Looks at the first controller of an endpoint; None without TLS, or if it does not answer. Takes a moment."""
    if endpoint.ca is None:
        return None
    from cryptography import x509  # only where there is TLS: it costs a command its start-up

    from trainctl.protos.tls_probe import probe
    from trainctl.protos.unreadable import UNREADABLE

    try:
        authorities = x509.load_pem_x509_certificates(endpoint.ca)
        seen = probe(endpoint.address.split(",")[0])
    except (*UNREADABLE, OSError):
        return None
    if seen.shown is None:
        return None
    ends_s = min(one.not_valid_after_utc.timestamp() for one in authorities)
    return Certificates(controller=seen.shown.ends_s, authority=ends_s)
