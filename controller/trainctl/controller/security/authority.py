"""The installation's own certificate authority: it signs for controllers and for nodes, and for nobody else.

Whom it signs for is decided elsewhere; here nothing is taken over from those who ask but their public key.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trainctl.core.errors import PermissionDeniedError, PreconditionError
from trainctl.core.system.files import write_atomically
from trainctl.core.units import format_time
from trainctl.protos.unreadable import UNREADABLE

CERTIFICATE, KEY = "ca.crt", "ca.key"
"""Names of the two files in its folder."""
LIFE_S = 10 * 365 * 86400.0
BACKDATED_S = 300.0
"""A certificate is good from a little before it was signed: clocks differ."""
_SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class AuthorityError(PreconditionError):
    """The files of the certificate authority cannot be used."""

    code = "AUTHORITY_UNUSABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its issuer's behind it, and its key: PEM; good from one Unix time to another."""

    chain: bytes
    key: bytes
    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Authority:
    """Made by ``open_authority`` or ``read_authority``.

    Attributes:
        certificate: its own.
    """

    certificate: x509.Certificate
    _key: _SigningKey

    @property
    def pem(self) -> bytes:
        """Whom everybody in this installation trusts."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The same, as it stands in join tokens."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def ends_s(self) -> float:
        """When its own certificate expires."""
        return self.certificate.not_valid_after_utc.timestamp()

    def for_server(self, names: Sequence[str], now_s: float, life_s: float) -> Pair:
        """A new key and certificate for whoever is reached under ``names`` (host names and addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = [_server_name(name) for name in dict.fromkeys(names)]
        signed = self._sign("trainctl controller", key.public_key(), alternative, now_s, life_s, server=True)
        return Pair(
            chain=signed.public_bytes(serialization.Encoding.PEM) + self.pem,
            key=_key_pem(key),
            begins_s=signed.not_valid_before_utc.timestamp(),
            ends_s=signed.not_valid_after_utc.timestamp(),
        )

    def for_node(self, key: CertificatePublicKeyTypes, node: str, uri: str, now_s: float, life_s: float) -> bytes:
        """A certificate, PEM, for the holder of ``key``: it says ``uri`` and can be used by clients only."""
        alternative = [x509.UniformResourceIdentifier(uri)]
        signed = self._sign(node, key, alternative, now_s, life_s, server=False)
        return signed.public_bytes(serialization.Encoding.PEM) + self.pem

    def _sign(
        self, name: str, key: CertificatePublicKeyTypes, alternative: Sequence[x509.GeneralName], now_s: float,
        life_s: float, *, server: bool,
    ) -> x509.Certificate:  # fmt: skip
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        ends_s = min(now_s + life_s, self.ends_s)
        return (
            _builder(_name(name), self.certificate.subject, key, now_s - BACKDATED_S, ends_s)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, _digest(self._key))
        )


def open_authority(folder: Path, now_s: float) -> Authority:
    """The authority in ``folder``, made there if there is none.

    Raises:
        AuthorityError: what is there cannot be used.
        PermissionDeniedError: it cannot be read or written.
    """
    if not (folder / CERTIFICATE).exists() and not (folder / KEY).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, now_s)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The certificate last: half of a pair that was never used is made anew.
            write_atomically(folder / KEY, _key_pem(key), mode=0o600)
            write_atomically(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
        except OSError as error:
            raise PermissionDeniedError(
                f"{folder}: the certificate authority cannot be written: {error.strerror}",
                hint="give a folder that this user can write with --dir",
            ) from error
    return read_authority(folder, now_s)


def read_authority(folder: Path, now_s: float) -> Authority:
    """The authority in ``folder``.

    Raises:
        AuthorityError: what is there cannot be used, or there is none.
        PermissionDeniedError: it cannot be read.
    """
    certificate = _certificate(_read(folder / CERTIFICATE), folder / CERTIFICATE)
    key = _private_key(_read(folder / KEY), folder / KEY)
    begins_s, ends_s = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if key.public_key() != certificate.public_key():
        raise AuthorityError(
            f"{folder}: {KEY} is not the key of {CERTIFICATE}", hint="put the two files of one authority there"
        )
    if not _may_sign(certificate):
        raise AuthorityError(
            f"{folder / CERTIFICATE}: expected the certificate of an authority (CA:TRUE, keyCertSign), found one that "
            "may not sign",
            hint="the certificate of a server belongs to --tls-cert; --tls-ca takes an authority",
        )
    if not begins_s - BACKDATED_S <= now_s < ends_s:
        raise AuthorityError(
            f"{folder / CERTIFICATE}: good from {format_time(begins_s)} to {format_time(ends_s)}; it is now "
            f"{format_time(now_s)}",
            hint="check this machine's clock; an authority that has expired is to be replaced, and all nodes join anew",
        )
    return Authority(certificate, key)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            return False
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as error:
        return error.oid == x509.KeyUsage.oid  # one without any usage may be used for everything


def _self_signed(key: ec.EllipticCurvePrivateKey, now_s: float) -> x509.Certificate:
    name = _name(f"trainctl authority {secrets.token_hex(4)}")  # so that two of them can be told apart
    return (
        _builder(name, name, key.public_key(), now_s - BACKDATED_S, now_s + LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, begins_s: float, ends_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(begins_s))
        .not_valid_after(_time(ends_s))
    )


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(unix_s))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _server_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _digest(key: _SigningKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AuthorityError(
            f"{path} does not exist: expected {CERTIFICATE} and {KEY} of the certificate authority in that folder",
            hint="copy both from the controller that made them, or give the right folder with --tls-ca",
        ) from error
    except OSError as error:
        raise PermissionDeniedError(
            f"{path} cannot be read: {error.strerror}", hint="it has to be readable for the controller's user"
        ) from error


def _certificate(data: bytes, path: Path) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(data)
        found.public_key()
        _ = found.extensions  # read when they are asked for
    except UNREADABLE as error:
        raise AuthorityError(f"{path}: expected a certificate in PEM form, found none") from error
    return found


def _private_key(data: bytes, path: Path) -> _SigningKey:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except UNREADABLE as error:
        raise AuthorityError(
            f"{path}: expected a private key in PEM form without a password, found none",
            hint="openssl pkey -in KEY -out ca.key takes a password away",
        ) from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise AuthorityError(f"{path}: expected a key that signs (EC, RSA or Ed25519), found {type(key).__name__}")
    return key
