"""What is taken over from a certificate request: its public key, once its holder has shown to have the private one."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from trainctl.core.errors import UsageError
from trainctl.protos.unreadable import UNREADABLE

MAX_BYTES = 8 * 1024
CURVES = ("secp256r1", "secp384r1")
RSA_BITS = (2048, 4096)
"""At least and at most: a longer one costs the controller time."""


class BadRequestError(UsageError):
    """A certificate request that is not signed."""

    code = "CERTIFICATE_REQUEST_INVALID"


def read_request(der: bytes, node: str) -> CertificatePublicKeyTypes:
    """The public key of the request of ``node``.

    Raises:
        BadRequestError: it is none, or asks for more than a certificate of this node.
    """
    if len(der) > MAX_BYTES:
        raise _bad(node, f"expected at most {MAX_BYTES} bytes, found {len(der)}")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        genuine = request.is_signature_valid
        extensions = [extension.oid.dotted_string for extension in request.extensions]
        names = [str(attribute.value) for attribute in request.subject]
        plain = all(attribute.oid == NameOID.COMMON_NAME for attribute in request.subject)
    except UNREADABLE as error:
        raise _bad(node, f"expected PKCS #10 in DER form, found {len(der)} bytes that are none") from error
    if not genuine:
        raise _bad(node, "it is not signed with the key that it names")
    if extensions:
        raise _bad(node, f"expected a key and no wishes, found extensions: {', '.join(extensions)}")
    if names not in ([], [node]) or not plain:
        raise _bad(node, f"expected no subject, or CN={node}, found {', '.join(names)[:200]!r}")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise _bad(node, "expected a key of P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits, found another one")


def _bad(node: str, why: str) -> BadRequestError:
    return BadRequestError(f"the certificate request of {node}: {why}", hint="trainctl-agent makes a right one")
