"""Whether what is sent stays on this machine."""

from __future__ import annotations

from collections.abc import Iterable

_HOSTS = frozenset({"localhost", "::1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself, seen from itself."""
    return host in _HOSTS or host.startswith("127.")


def beyond_loopback(addresses: Iterable[str]) -> list[str]:
    """Those of ``host:port`` that are elsewhere."""
    return [address for address in addresses if not is_loopback(address.rpartition(":")[0])]
