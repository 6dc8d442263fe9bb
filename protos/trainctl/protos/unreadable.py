"""What ``cryptography`` raises at bytes from elsewhere that are no certificate, request or key: not only ValueError."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

UNREADABLE = (
    ValueError,
    TypeError,
    IndexError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""Found by damaging good ones; ``x509.ExtensionNotFound`` is about a certificate that can be read."""
