"""The certificates that servers show: signed by the own authority or given as files, exchanged while they run.

gRPC asks at the beginning of every handshake whether there is another certificate now, from threads of its own; so
nothing has to run in the background, and no connection that is open notices.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from trainctl.controller.security.authority import Authority, Pair
from trainctl.core.errors import PermissionDeniedError, PreconditionError, TrainctlError
from trainctl.core.units import format_time
from trainctl.protos.unreadable import UNREADABLE

_log = logging.getLogger(__name__)
RENEWED_AFTER = 2 / 3
"""Part of its life after which a certificate is renewed."""


class ServerCertificateError(PreconditionError):
    """The given certificate cannot be used."""

    code = "SERVER_CERTIFICATE_UNUSABLE"


class Source(Protocol):
    """Where a server's certificate comes from."""

    def current(self) -> Pair:
        """The one to show now; the same object as long as it is the same.

        Raises:
            TrainctlError: there is none.
        """
        ...


class OwnCertificate:
    """Implements ``Source``: signed by the own authority when two thirds of the former one's life are over.

    Args:
        authority: that signs.
        names: under which the server is reached.
        wall_s: Unix time.
        life_s: of each certificate.
    """

    def __init__(self, authority: Authority, names: Sequence[str], wall_s: Callable[[], float], life_s: float) -> None:
        self._authority = authority
        self._names = names
        self._wall_s = wall_s
        self._life_s = life_s
        self._pair: Pair | None = None
        self._due_s = 0.0

    def current(self) -> Pair:
        """See ``Source.current``."""
        now_s = self._wall_s()
        if self._pair is None or not self._due_s - self._life_s <= now_s < self._due_s:
            self._pair = self._authority.for_server(self._names, now_s, self._life_s)
            self._due_s = now_s + RENEWED_AFTER * self._life_s
            _log.info("the server's certificate is good until %s", format_time(self._pair.ends_s))
        return self._pair


class GivenFiles:
    """Implements ``Source``: files that somebody else exchanges; while they do not fit, the former pair is shown.

    One that is not good now is shown all the same, and the log says so: better a controller without people than none.

    Args:
        certificate: file of the chain.
        key: file of its private key.
        wall_s: Unix time.
    """

    def __init__(self, certificate: Path, key: Path, wall_s: Callable[[], float]) -> None:
        self._paths = (certificate, key)
        self._wall_s = wall_s
        self._told_of: Pair | None = None
        self._seen: tuple[int, ...] = ()
        self._pair: Pair | None = None

    def current(self) -> Pair:
        """See ``Source.current``."""
        if self._pair is None:
            return self._take_up(read_pair(*self._paths))
        try:
            if self._state() != self._seen:
                return self._take_up(read_pair(*self._paths))
        except (TrainctlError, OSError) as error:
            _log.warning("the certificate in use stays, what is in its place now cannot be: %s", error)
        self._tell(self._pair)
        return self._pair

    def _take_up(self, pair: Pair) -> Pair:
        self._pair, self._seen = pair, self._state()
        _log.info("the server's certificate is %s now, good until %s", self._paths[0], format_time(pair.ends_s))
        self._tell(pair)
        return pair

    def _tell(self, pair: Pair) -> None:
        """Once of each, at its first handshake out of its time: asked again and again it would fill the log."""
        now_s = self._wall_s()
        if pair.begins_s <= now_s < pair.ends_s or pair is self._told_of:
            return
        self._told_of = pair
        _log.error(
            "no client takes %s: it is good from %s to %s, and it is %s now; put a renewed one in its place",
            self._paths[0],
            format_time(pair.begins_s),
            format_time(pair.ends_s),
            format_time(now_s),
        )

    def _state(self) -> tuple[int, ...]:
        found = [path.stat() for path in self._paths]
        return tuple(number for one in found for number in (one.st_mtime_ns, one.st_ino, one.st_size))


def read_pair(certificate: Path, key: Path) -> Pair:
    """A server's certificate and key from files.

    Raises:
        ServerCertificateError: they do not fit.
        PermissionDeniedError: they cannot be read.
    """
    try:
        chain, secret = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise PermissionDeniedError(
            f"{error.filename} cannot be read: {error.strerror}", hint="check --tls-cert and --tls-key"
        ) from error
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
        certified = first.public_key()
    except UNREADABLE as error:
        raise ServerCertificateError(f"{certificate}: expected certificates in PEM form, found none") from error
    try:
        own = serialization.load_pem_private_key(secret, password=None).public_key()
    except UNREADABLE as error:
        raise ServerCertificateError(f"{key}: expected a private key in PEM form without a password") from error
    if own != certified:
        raise ServerCertificateError(f"{key} is not the key of {certificate}", hint="give the two files of one pair")
    begins_s, ends_s = first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
    return Pair(chain=chain, key=secret, begins_s=begins_s, ends_s=ends_s)


def server_credentials(source: Source, *, clients_of: Authority | None = None) -> grpc.ServerCredentials:
    """What a port is opened with.

    Args:
        source: of the certificate that it shows.
        clients_of: let in only clients with a certificate of this authority.

    Raises:
        TrainctlError: there is no certificate to begin with.
    """
    roots = clients_of.pem if clients_of is not None else None
    lock = threading.Lock()
    shown = source.current()

    def configured(pair: Pair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], root_certificates=roots)

    def another() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        with lock:
            try:
                pair = source.current()
            except Exception:
                _log.exception("the server's certificate could not be renewed; the former one stays")
                return None
            if pair is shown:
                return None
            shown = pair
            return configured(pair)

    return grpc.dynamic_ssl_server_credentials(
        configured(shown),
        cast("Callable[[], grpc.ServerCertificateConfiguration]", another),  # None: the same as before
        require_client_authentication=clients_of is not None,
    )
