"""Whose jobs a command is about: the tenant of flags, environment or context, and that of a job file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainctl.cli.config.settings import Found, Settings
from trainctl.cli.jobfile_positions import with_positions
from trainctl.controller.domain.spec.overrides import apply_overrides
from trainctl.core.errors import Problem, SpecError, UsageError
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


def tenant_of_job(text: str, overrides: Sequence[str], named: Found, *, source: str) -> str:
    """The tenant to submit a job to; empty if nobody says.

    Args:
        text: of the job file, which is valid.
        overrides: of the command line.
        named: by flags, environment or context.
        source: name of the file.

    Raises:
        SpecError: file and command name different ones.
    """
    metadata = apply_overrides(text, overrides, source=source).get("metadata")
    of_file = str(metadata.get("tenant", "")) if isinstance(metadata, Mapping) else ""
    if of_file and named.value and named.value != of_file:
        problem = Problem(
            path="metadata.tenant", message=f'expected "{named.value}" ({named.origin}), found "{of_file}"'
        )
        error = SpecError((problem,), source=source, hint="name the same tenant in both, or only in one of them")
        raise with_positions(error, text=text, source=source, overrides=overrides)
    return of_file or named.value


def fill_in(request: Any, tenant: str) -> None:
    """Names the tenant in a request that could name one and does not."""
    if tenant and "tenant" in request.DESCRIPTOR.fields_by_name and not request.tenant:
        request.tenant = tenant
