"""Where an etcd is and how to be let in: ``etcd://HOST:PORT[,HOST:PORT...][/PREFIX][?option=value&...]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted
from trainctl.core.units import parse_bytes

SCHEME = "etcd"
DEFAULT_PORT = 2379
DEFAULT_QUOTA_BYTES = 2 << 30
"""etcd's own default."""
OPTIONS: Mapping[str, str] = {
    "ca": "file of the certificates that the members' are signed with; switches TLS on",
    "cert": "file of the client's certificate",
    "key": "file of its private key",
    "server-name": "name in the members' certificates, if it is not the host's",
    "user": "user name, with password-file",
    "password-file": "file with the user's password",
    "quota": "what etcd may occupy (its --quota-backend-bytes), if it is not 2GiB",
}
_EXAMPLE = "etcd://10.0.0.1:2379,10.0.0.2:2379/team-a?ca=ca.pem&cert=me.pem&key=me.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAddress:
    """How to reach an etcd cluster.

    Attributes:
        members: ``host:port`` of each.
        prefix: in front of all our keys: ``/team-a``; empty for none.
        ca, cert, key: files for TLS; None where not used.
        server_name: name to check in the members' certificates; empty: the host's.
        user: to authenticate as; empty: nobody, or whom the certificate names.
        password_file: where that user's password is.
        quota_bytes: what etcd may occupy.
    """

    members: tuple[str, ...]
    prefix: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    user: str = ""
    password_file: Path | None = None
    quota_bytes: int = DEFAULT_QUOTA_BYTES

    @property
    def tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.ca is not None

    def __str__(self) -> str:
        return f"{SCHEME}://{','.join(self.members)}{self.prefix}"


def parse_address(text: str) -> EtcdAddress:
    """Reads an address; relative files are of the working directory.

    Raises:
        UsageError: all that is wrong with it.
    """
    parts = urlsplit(text)
    problems: list[str] = []
    if parts.scheme != SCHEME:
        problems.append(f"expected {SCHEME}://, found {parts.scheme or 'no'} scheme")
    if "@" in parts.netloc:
        problems.append("a password in an address can be read by everybody on the machine: use user and password-file")
    members, wrong = _members(parts.netloc.rpartition("@")[2])
    problems += wrong
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    problems += [
        f"unknown option {quoted(name)}; known: {', '.join(OPTIONS)}" for name in options if name not in OPTIONS
    ]
    problems += [f"option {quoted(name)} is empty" for name, value in pairs if not value]
    problems += [f"option {quoted(name)} occurs twice" for name in options if [n for n, _ in pairs].count(name) > 1]
    problems += _mismatches(options)
    quota_bytes = DEFAULT_QUOTA_BYTES
    try:
        quota_bytes = parse_bytes(options.get("quota", "2GiB"))
    except ValueError as error:
        problems.append(f"quota: {error}")
    if problems:
        shown = f"{SCHEME}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        raise UsageError(f"store address {shown}: {'; '.join(problems)}", hint=f"for example {_EXAMPLE}")
    prefix = "/" + unquote(parts.path).strip("/")
    return EtcdAddress(
        members=members,
        prefix="" if prefix == "/" else prefix,
        ca=_path(options, "ca"),
        cert=_path(options, "cert"),
        key=_path(options, "key"),
        server_name=options.get("server-name", ""),
        user=options.get("user", ""),
        password_file=_path(options, "password-file"),
        quota_bytes=quota_bytes,
    )


def _members(text: str) -> tuple[tuple[str, ...], list[str]]:
    members: list[str] = []
    problems: list[str] = []
    for part in text.split(","):
        host, colon, port = part.rpartition(":")
        if part.endswith("]") or not colon:
            host, port = part, str(DEFAULT_PORT)
        if not host:
            problems.append(f"expected HOST:PORT, found {quoted(part)}")
        elif not port.isdigit() or not 0 < int(port) < 65536:
            problems.append(f"{quoted(part)}: expected a port from 1 to 65535, found {quoted(port)}")
        members.append(f"{host}:{port}")
    problems += [f"{member} occurs twice" for member in sorted(set(members)) if members.count(member) > 1]
    return tuple(members), problems


def _mismatches(options: Mapping[str, str]) -> list[str]:
    pairs = (("cert", "key"), ("key", "cert"), ("user", "password-file"), ("password-file", "user"))
    found = [f"{one} without {other}" for one, other in pairs if one in options and other not in options]
    if "ca" not in options and {"cert", "server-name"} & options.keys():
        found.append("cert and server-name need ca, which switches TLS on")
    return found


def _path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if options.get(name) else None
