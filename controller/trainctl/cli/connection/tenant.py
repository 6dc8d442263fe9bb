"""Whose jobs a command is about: the tenant of flags, environment or context."""

from __future__ import annotations

from typing import Any

from trainctl.cli.config.settings import Settings
from trainctl.core.errors import UsageError
from trainctl.core.ids import LABEL, is_label
from trainctl.core.texts import shortened


def check_tenant(text: str, origin: str) -> None:
    """Raises: UsageError: it is no tenant's name; names its origin."""
    if not is_label(text):
        raise UsageError(f'{origin}: expected {LABEL}, found "{shortened(text)}"', hint="for example --tenant research")


def tenant_of(settings: Settings) -> str:
    """The tenant that was named; empty: the controller takes the token's only one, else the default.

    Raises:
        UsageError: it is no tenant's name.
    """
    found = settings["tenant"]
    if found.value:
        check_tenant(found.value, found.origin)
    return found.value


def fill_in(request: Any, tenant: str) -> None:
    """Names the tenant in a request that could name one and does not."""
    if tenant and "tenant" in request.DESCRIPTOR.fields_by_name and not request.tenant:
        request.tenant = tenant
