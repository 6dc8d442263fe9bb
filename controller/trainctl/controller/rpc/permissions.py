"""What each method takes: the least role, and where one has to have it. Decided from data alone.

A method that is missing here is nobody's: an architecture test compares the table with the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainctl.controller.access.caller import ALL_TENANTS, Caller, Grant, Kind, Role
from trainctl.core.errors import PermissionDeniedError


class About(StrEnum):
    """What a method is about, and so where its role is needed."""

    TENANT = "tenant"
    """The tenants that the request names."""
    CLUSTER = "cluster"
    """What all tenants share: takes a role that holds for all of them."""
    SOMEWHERE = "somewhere"
    """The answer holds only what the caller may see: the role in any tenant is enough."""
    ITSELF = "itself"
    """The caller."""
    AGENTS = "agents"
    """What agents say: no person's business."""
    ANYBODY = "anybody"
    """Needs no token: the method looks for itself at what it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a method takes.

    Attributes:
        about: where the role is needed.
        least: that allows it.
        changes: it changes something, so it is written down who asked for it.
        own: it changes a job that exists: below ``OPERATOR`` only one that the caller made.
    """

    about: About
    least: Role = Role.VIEWER
    changes: bool = False
    own: bool = False


_LOOK = Rule(about=About.TENANT)
_CHANGE = Rule(about=About.TENANT, least=Role.SUBMITTER, changes=True, own=True)
_NODE = Rule(about=About.CLUSTER, least=Role.OPERATOR, changes=True)
_JOIN, _JOIN_TOKENS = "trainctl.v1.JoinService", "trainctl.v1.JoinTokenService"
_JOBS, _AGENTS, _ACCESS = "trainctl.v1.JobService", "trainctl.v1.AgentService", "trainctl.v1.AccessService"

RULES: Mapping[str, Rule] = {
    f"{_JOBS}/CreateJob": Rule(about=About.TENANT, least=Role.SUBMITTER, changes=True),
    f"{_JOBS}/GetJob": _LOOK,
    f"{_JOBS}/ListJobs": _LOOK,
    f"{_JOBS}/WatchJob": _LOOK,
    f"{_JOBS}/ListEvents": _LOOK,
    f"{_JOBS}/WatchEvents": _LOOK,
    f"{_JOBS}/StreamLogs": _LOOK,
    f"{_JOBS}/ListFigures": _LOOK,
    f"{_JOBS}/ExplainJob": _LOOK,
    f"{_JOBS}/ListCheckpoints": _LOOK,
    f"{_JOBS}/CancelJob": _CHANGE,
    f"{_JOBS}/ScaleJob": _CHANGE,
    f"{_JOBS}/PauseJob": _CHANGE,
    f"{_JOBS}/ResumeJob": _CHANGE,
    f"{_JOBS}/RestartJob": _CHANGE,
    f"{_JOBS}/RollbackJob": _CHANGE,
    f"{_JOBS}/DeleteJob": _CHANGE,
    f"{_JOBS}/DeleteCheckpoint": _CHANGE,
    f"{_JOBS}/PinCheckpoint": _CHANGE,
    f"{_JOBS}/RefuseCheckpoint": _CHANGE,
    f"{_JOBS}/AcceptCheckpoint": Rule(about=About.TENANT, least=Role.OPERATOR, changes=True),
    f"{_JOBS}/ListNodes": Rule(about=About.SOMEWHERE),
    f"{_JOBS}/CordonNode": _NODE,
    f"{_JOBS}/UncordonNode": _NODE,
    f"{_JOBS}/GetVersion": Rule(about=About.ITSELF),
    f"{_ACCESS}/WhoAmI": Rule(about=About.ITSELF),
    f"{_ACCESS}/CreateToken": Rule(about=About.TENANT, least=Role.ADMIN, changes=True),
    f"{_ACCESS}/ListTokens": Rule(about=About.SOMEWHERE, least=Role.ADMIN),
    f"{_ACCESS}/RevokeToken": Rule(about=About.SOMEWHERE, least=Role.ADMIN, changes=True),
    f"{_ACCESS}/ListAudit": Rule(about=About.SOMEWHERE, least=Role.ADMIN),
    f"{_AGENTS}/Register": Rule(about=About.AGENTS, changes=True),
    f"{_AGENTS}/Session": Rule(about=About.AGENTS),
    f"{_JOIN}/Join": Rule(about=About.ANYBODY, changes=True),
    f"{_JOIN}/Locate": Rule(about=About.ANYBODY),
    f"{_JOIN_TOKENS}/CreateJoinToken": _NODE,
    f"{_JOIN_TOKENS}/ListJoinTokens": Rule(about=About.CLUSTER, least=Role.OPERATOR),
    f"{_JOIN_TOKENS}/RevokeJoinToken": _NODE,
    f"{_AGENTS}/Renew": Rule(about=About.AGENTS, changes=True),
}
"""By service and method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a caller may not do something.

    Attributes:
        why: what would be needed, in words.
        role: that would allow it; None if none does.
        where: the tenant in which it is needed.
    """

    why: str
    role: Role | None = None
    where: str = ALL_TENANTS


def refusal(caller: Caller, method: str, tenants: Sequence[str], owner: str | None = None) -> Refusal | None:
    """Why a caller may not do this; None if it may.

    Args:
        caller: who asks.
        method: service and name.
        tenants: that the request names.
        owner: who made the job that the request would change; None if it would change none, or there is none.
    """
    rule = RULES.get(method)
    name = method.rpartition("/")[2]
    if rule is None:
        return Refusal(why=f"{name} is not in the table of permissions")
    if rule.about is About.ANYBODY:
        return None
    if rule.about is About.AGENTS:
        return None if caller.kind in (Kind.AGENT, Kind.LOCAL) else Refusal(why=f"{name} is for agents only")
    if caller.kind in (Kind.AGENT, Kind.NOBODY):
        return Refusal(why=f"{name} is for people only")
    if rule.about is About.ITSELF:
        return None
    if rule.about is About.SOMEWHERE:
        if any(grant.role.covers(rule.least) for grant in caller.grants):
            return None
        return Refusal(why=f"{name} needs the role {rule.least} in some tenant", role=rule.least)
    for tenant in (ALL_TENANTS,) if rule.about is About.CLUSTER else tenants:
        if not caller.may(rule.least, tenant):
            return _needed(name, rule.least, tenant)
        others = rule.own and owner is not None and owner != caller.name
        if others and not caller.may(Role.OPERATOR, tenant):
            return _needed(f"{name} of a job that somebody else made", Role.OPERATOR, tenant)
    return None


def check(caller: Caller, method: str, tenants: Sequence[str], owner: str | None = None) -> None:
    """The same, as an error that says who one is, what one may, and whom to ask.

    Raises:
        PermissionDeniedError: it may not.
    """
    found = refusal(caller, method, tenants, owner)
    if found is None:
        return
    hint = "`trainctl tokens whoami` shows what this token is for"
    if found.role is not None:
        admin = "the installation" if found.where == ALL_TENANTS else f"tenant {found.where}"
        tenant = "'*'" if found.where == ALL_TENANTS else found.where
        hint = f"ask an admin of {admin}: trainctl tokens create NAME --role {found.role} --tenant {tenant}"
    may = "; ".join(map(str, caller.grants)) or "no role"
    raise PermissionDeniedError(f"{found.why}; this is {caller}: {may}", hint=hint)


def _needed(what: str, role: Role, tenant: str) -> Refusal:
    return Refusal(why=f"{what} needs the role {Grant(tenant, role)}", role=role, where=tenant)
