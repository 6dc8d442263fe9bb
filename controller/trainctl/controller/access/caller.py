"""Who makes a call, and what that one may: pure data."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from trainctl.core.ids import DEFAULT_TENANT

ALL_TENANTS = "*"
"""Tenant of a grant that holds for the whole installation."""


class Role(StrEnum):
    """What a grant allows; each one allows all that those before it do."""

    VIEWER = "viewer"
    """Looks at jobs, their logs and figures."""
    SUBMITTER = "submitter"
    """Makes jobs, and changes those that it made."""
    OPERATOR = "operator"
    """Changes everybody's jobs; for all tenants, nodes, too."""
    ADMIN = "admin"
    """Gives others their tokens, and reads the audit log."""

    @property
    def rank(self) -> int:
        """Greater than that of each lesser role."""
        return tuple(Role).index(self)

    def covers(self, least: Role) -> bool:
        """Whether it allows all that ``least`` does."""
        return self.rank >= least.rank


class Kind(StrEnum):
    """What sort of thing calls."""

    LOCAL = "local"
    """Whoever can read the controller's own token file: the administrator of everything, and the local agents."""
    PERSON = "person"
    """Somebody, or a program of theirs, with a token of their own."""
    AGENT = "agent"
    """An agent; its name is its node's."""
    NOBODY = "nobody"
    """Has not said who it is."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in one tenant, or in all of them (``ALL_TENANTS``)."""

    tenant: str
    role: Role

    def __str__(self) -> str:
        where = "all tenants" if self.tenant == ALL_TENANTS else f"tenant {self.tenant}"
        return f"{self.role} in {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    Attributes:
        kind: what sort of thing it is.
        name: of the person or the node.
        token_id: of the token that it showed; empty where that was none of the store's.
        grants: what it may.
        expires_s: Unix time at which its token ends; 0: never.
    """

    kind: Kind
    name: str
    token_id: str = ""
    grants: tuple[Grant, ...] = ()
    expires_s: float = 0.0

    def __str__(self) -> str:
        if self.kind is Kind.LOCAL:
            return "the controller's own token"
        if self.kind is Kind.AGENT:
            return f"the agent of {self.name}"
        return f"{self.name} (token {self.token_id})" if self.token_id else self.name

    @property
    def key(self) -> str:
        """Tells callers apart, for limits."""
        return f"{self.kind}/{self.token_id or self.name}"

    @property
    def home_tenant(self) -> str:
        """Whose jobs are meant where no tenant is named: the only one that it has a role in, else the default."""
        tenants = {grant.tenant for grant in self.grants}
        return next(iter(tenants)) if len(tenants) == 1 and ALL_TENANTS not in tenants else DEFAULT_TENANT

    def role_in(self, tenant: str) -> Role | None:
        """The greatest role in a tenant; in ``ALL_TENANTS`` only what holds for all of them counts."""
        roles = [grant.role for grant in self.grants if grant.tenant in (tenant, ALL_TENANTS)]
        return max(roles, key=lambda role: role.rank, default=None)

    def may(self, least: Role, tenant: str) -> bool:
        """Whether its role in a tenant is at least that."""
        role = self.role_in(tenant)
        return role is not None and role.covers(least)


NOBODY = Caller(kind=Kind.NOBODY, name="nobody")
_calling: ContextVar[Caller] = ContextVar("calling", default=NOBODY)


def calling() -> Caller:
    """Who made the call that is being answered; ``NOBODY`` outside of one."""
    return _calling.get()


def answer_to(caller: Caller) -> None:
    """From here on this task answers a call of ``caller``."""
    _calling.set(caller)
