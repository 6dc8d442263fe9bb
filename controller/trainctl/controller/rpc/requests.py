"""What a request is about, read off its fields: the tenant, and the job, node or token that it names."""

from __future__ import annotations

from typing import Any

from trainctl.controller.access.caller import ALL_TENANTS
from trainctl.core.errors import UsageError
from trainctl.core.ids import LABEL, is_label
from trainctl.core.texts import shortened
from trainctl.protos.v1 import access_pb2, job_pb2


def settle_tenant(request: Any, home: str) -> tuple[str, ...]:
    """The tenants that a request names; where it could name one and does not, ``home`` is written into it.

    Args:
        request: the message, or the iterator of a stream.
        home: the tenant that the caller means where it names none.

    Raises:
        UsageError: something else stands where a tenant's name is expected.
    """
    if isinstance(request, access_pb2.CreateTokenRequest):
        named = tuple(grant.tenant for grant in request.grants)
        _check(*(tenant for tenant in named if tenant != ALL_TENANTS))
        return named or (ALL_TENANTS,)
    if isinstance(request, job_pb2.CreateJobRequest):
        tenant = request.job.metadata.tenant or home
        _check(tenant)
        request.job.metadata.tenant = tenant
        return (tenant,)
    if not has_field(request, "tenant"):
        return ()
    request.tenant = request.tenant or home
    _check(request.tenant)
    return (request.tenant,)


def subject_of(request: Any) -> str:
    """The job, node or token that a request names; empty if none."""
    if isinstance(request, job_pb2.CreateJobRequest):
        return request.job.metadata.name
    fields = [field for field in ("name", "node", "id") if has_field(request, field)]
    return str(getattr(request, fields[0])) if fields else ""


def only_asks(request: Any) -> bool:
    """Whether it wants to know what would be done, and nothing done."""
    return has_field(request, "validate_only") and bool(request.validate_only)


def request_id_of(request: Any) -> str:
    """The id under which a change is asked for; empty if there is none."""
    return str(request.request_id) if has_field(request, "request_id") else ""


def has_field(request: Any, name: str) -> bool:
    """Whether messages of this type have a field of this name."""
    descriptor = getattr(request, "DESCRIPTOR", None)
    return descriptor is not None and name in descriptor.fields_by_name


def _check(*tenants: str) -> None:
    for tenant in tenants:
        if not is_label(tenant):
            raise UsageError(f'tenant: expected {LABEL}, found "{shortened(tenant)}"', hint="trainctl tokens whoami")
