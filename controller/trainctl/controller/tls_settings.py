"""Whether and how a controller encrypts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LIFE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How to encrypt.

    Attributes:
        authority: folder of the certificate authority; None: the controller's own, made at its first start.
        names: host names and addresses that the server's certificate is for, too.
        certificate, key: files of what the API port shows; None: a certificate of the authority.
        agents_host: where agents' sessions are taken; empty: where people's calls are.
        agents_port: 0: any.
        server_life_s: of a certificate that the controller makes for itself.
        agent_life_s: of an agent's certificate.
    """

    authority: Path | None = None
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    agents_host: str = ""
    agents_port: int = 0
    server_life_s: float = LIFE_S
    agent_life_s: float = LIFE_S
