"""Which wire this build speaks, and how it presents itself on every call."""

from __future__ import annotations

from functools import cache

WIRE_VERSION = 1
"""Rises when an older peer could misread what we send; additions to messages do not count."""

WIRE_HEADER = "x-trainctl-wire"
"""Metadata key that carries ``WIRE_VERSION``."""

AUTH_HEADER = "authorization"
"""Metadata key that carries ``Bearer <token>``."""

REQUEST_HEADER = "x-trainctl-request"
"""Metadata key of an id under which the controller logs a call that it refuses; the caller shows it, too."""

DISTRIBUTION = "trainctl-orchestrator"


@cache
def package_version() -> str:
    """Version of the installed distribution, or ``0+source`` when running from a source tree."""
    from importlib import metadata  # a command that asks nobody for its version does without

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+source"


def call_metadata(token: str, request_id: str = "") -> tuple[tuple[str, str], ...]:
    """The metadata every call to a controller carries."""
    named = ((REQUEST_HEADER, request_id),) if request_id else ()
    return ((AUTH_HEADER, f"Bearer {token}"), (WIRE_HEADER, str(WIRE_VERSION)), *named)
