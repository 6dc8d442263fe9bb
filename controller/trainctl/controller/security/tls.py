"""How a controller's ports are encrypted, from its settings: whose certificates they show, and whom they let in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from trainctl.controller.security.authority import Authority, open_authority, read_authority
from trainctl.controller.security.serving import GivenFiles, OwnCertificate, Source, server_credentials
from trainctl.controller.tls_settings import TlsSettings

_EVERYWHERE = ("0.0.0.0", "::", "[::]", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What the process has for it.

    Attributes:
        authority: of the installation.
        people: what the API port shows.
        agents: what the agents' port shows.
        settings: how it was asked for.
    """

    authority: Authority
    people: Source
    agents: Source
    settings: TlsSettings

    def for_people(self) -> grpc.ServerCredentials:
        """Of the API port: callers show a token, if anything."""
        return server_credentials(self.people)

    def for_agents(self) -> grpc.ServerCredentials:
        """Of the agents' port: callers show a certificate of this installation."""
        return server_credentials(self.agents, clients_of=self.authority)


def prepare_tls(settings: TlsSettings, folder: Path, hosts: Sequence[str], wall_s: Callable[[], float]) -> Tls:
    """Opens the authority, which is made in ``folder`` unless the settings name one, and the first certificates.

    Args:
        settings: how it was asked for.
        folder: where the own authority lies.
        hosts: under which the controller is reached, beside those that are always there.
        wall_s: Unix time.

    Raises:
        TrainctlError: the files cannot be used.
    """
    now_s = wall_s()
    given = settings.authority
    authority = read_authority(given, now_s) if given is not None else open_authority(folder, now_s)
    own = OwnCertificate(authority, server_names((*settings.names, *hosts)), wall_s, settings.server_life_s)
    own.current()
    people: Source = own
    if settings.certificate is not None and settings.key is not None:
        people = GivenFiles(settings.certificate, settings.key, wall_s)
        people.current()
    return Tls(authority=authority, people=people, agents=own, settings=settings)


def server_names(hosts: Sequence[str]) -> list[str]:
    """Names for a controller's certificate: those given, this machine's, and the loopback's."""
    given = [host.strip("[]") for host in hosts if host not in _EVERYWHERE]
    return list(dict.fromkeys([*given, socket.gethostname(), "localhost", "127.0.0.1", "::1"]))
