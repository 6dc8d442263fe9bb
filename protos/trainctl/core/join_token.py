"""The text of a join token: with it a machine becomes a node, and knows whom it talks to before it says a word.

``tctl-join:<authority>:<id>.<secret>``; the authority is the certificate of the installation's own authority (DER,
base64url). As a machine gets it together with the secret, it need not first trust whoever answers, as with a digest.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

PREFIX = "tctl-join"
MAX_CHARACTERS = 16 * 1024
_SHAPE = re.compile(rf"{PREFIX}:([A-Za-z0-9_-]+):([a-z0-9]{{1,32}}\.[A-Za-z0-9_-]{{16,128}})")
SHAPE = f"{PREFIX}:AUTHORITY:ID.SECRET"
"""For messages."""


@dataclass(frozen=True, slots=True)
class JoinText:
    """What the text says.

    Attributes:
        authority: certificate of the authority, DER.
        credential: ``ID.SECRET``, for the controller.
    """

    authority: bytes
    credential: str

    def __str__(self) -> str:
        return f"{PREFIX}:{base64.urlsafe_b64encode(self.authority).decode().rstrip('=')}:{self.credential}"

    def __repr__(self) -> str:
        return f"JoinText({self.credential.partition('.')[0]}.***)"

    @property
    def authority_pem(self) -> bytes:
        """The certificate of the authority, PEM."""
        text = base64.b64encode(self.authority).decode()
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()


def read_join_text(text: str) -> JoinText:
    """What a join token's text says.

    Raises:
        ValueError: it is none; its message says what was expected, and nothing of what was found.
    """
    found = _SHAPE.fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if found is None:
        raise ValueError(f"expected {SHAPE}, found {len(text.strip())} characters that are none")
    try:
        authority = base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected {SHAPE}: its authority is no base64url text") from error
    return JoinText(authority, found[2])
