"""The tenant of a job file. Apart from ``tenant``: only what reads job files has to load all that knows about them."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.cli.config.settings import Found
from trainctl.cli.job_file.jobfile_positions import with_positions
from trainctl.controller.domain.spec.overrides import apply_overrides
from trainctl.core.errors import Problem, SpecError
from trainctl.core.plain import is_mapping


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
    of_file = str(metadata.get("tenant", "")) if is_mapping(metadata) else ""
    if of_file and named.value and named.value != of_file:
        problem = Problem(
            path="metadata.tenant", message=f'expected "{named.value}" ({named.origin}), found "{of_file}"'
        )
        error = SpecError((problem,), source=source, hint="name the same tenant in both, or only in one of them")
        raise with_positions(error, text=text, source=source, overrides=overrides)
    return of_file or named.value
