"""What happens to a call before its method is asked: who makes it, how often, whether it may, and a note of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from trainctl.controller.access.audit_log import AuditLog
from trainctl.controller.access.audit_record import AuditRecord, draft, host_of
from trainctl.controller.access.caller import NOBODY, Caller, Kind, answer_to
from trainctl.controller.access.limits import Buckets, Limits, RateLimitedError, TooManySessionsError
from trainctl.controller.access.token import UnauthenticatedError
from trainctl.controller.rpc import requests
from trainctl.controller.rpc.authentication import Authenticate
from trainctl.controller.rpc.permissions import RULES, About, check
from trainctl.controller.rpc.streams import OpenStreams
from trainctl.core.errors import PermissionDeniedError, TrainctlError
from trainctl.protos.status import code_of

_log = logging.getLogger(__name__)
_SESSION = "trainctl.v1.AgentService/Session"


class CallMetrics(Protocol):
    """Where calls are counted."""

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        ...

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Adds to a histogram."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A call as it comes in.

    Attributes:
        method: service and name.
        metadata: what it carries.
        context: ``grpc.aio.ServicerContext``.
    """

    method: str
    metadata: Mapping[str, Any]
    context: Any

    @property
    def peer(self) -> str:
        """From where, as gRPC says it."""
        return str(self.context.peer())


class Admission:
    """Lets calls in. Made once for each term of leading.

    Args:
        owner_of: who made the job of a tenant that has a name or uid; None if there is no such job.
        audit: where changes and refusals are written down; None: nowhere.
        limits: how much is too much.
        metrics: counts refusals.
        now_s: Unix seconds.
        monotonic_s: the clock of limits.
    """

    def __init__(
        self,
        *,
        owner_of: Callable[[str, str], str | None],
        audit: AuditLog | None,
        limits: Limits,
        metrics: CallMetrics,
        now_s: Callable[[], float],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._owner_of = owner_of
        self._audit = audit
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self.streams = OpenStreams(limits, now_s)
        self._calls = Buckets(limits.calls)
        self._local_calls = Buckets(limits.local_calls)
        self._strangers = Buckets(limits.strangers)
        self._open_calls = Buckets(limits.open_calls)
        self._sessions = Buckets(limits.sessions)

    def identify(self, arrival: Arrival, authenticate: Authenticate) -> Caller:
        """Who calls; nobody where a method asks for no token.

        Raises:
            UnauthenticatedError: nobody that is known here.
            RateLimitedError: the same, from a host that tries very often.
        """
        rule = RULES.get(arrival.method)
        if rule is not None and rule.about is About.ANYBODY:
            self._count_stranger(arrival, self._open_calls)
            return NOBODY
        try:
            return authenticate(arrival.metadata, arrival.context)
        except UnauthenticatedError as error:
            self._count_stranger(arrival, self._strangers)
            self._refused(arrival, NOBODY, error, None)
            raise

    def permit(self, arrival: Arrival, caller: Caller, request: Any) -> None:
        """Sees that the caller may do this now.

        Args:
            arrival: the call.
            caller: who makes it.
            request: the message, whose tenant is filled in; or the iterator of a stream.

        Raises:
            RateLimitedError, TooManySessionsError: not now.
            PermissionDeniedError: not at all.
        """
        self._check_rate(arrival, caller)
        try:
            tenants = requests.settle_tenant(request, caller.home_tenant)
            check(caller, arrival.method, tenants, self._owner(arrival, request, tenants))
        except PermissionDeniedError as error:
            self._refused(arrival, caller, error, request)
            raise
        answer_to(caller)

    @asynccontextmanager
    async def noted(self, arrival: Arrival, caller: Caller, request: Any) -> AsyncGenerator[None, None]:
        """Around what is done: a change is written down before it, and its outcome after it.

        Raises:
            TrainctlError: it cannot be written down.
        """
        rule = RULES.get(arrival.method)
        if self._audit is None or rule is None or not rule.changes or requests.only_asks(request):
            yield
            return
        record = _draft(arrival, caller, request)
        of_agent = rule.about in (About.AGENTS, About.ANYBODY)
        if not of_agent:
            record = await self._audit.begin(record)
        outcome, reason = grpc.StatusCode.CANCELLED.name, ""
        try:
            yield
            outcome = grpc.StatusCode.OK.name
        except Exception as error:
            outcome, reason = _outcome(error)
            raise
        finally:
            if of_agent:
                self._audit.note(record, outcome, reason, sort="agent")
            else:
                self._audit.end(record, outcome, reason)

    @asynccontextmanager
    async def streaming(self, arrival: Arrival, caller: Caller) -> AsyncGenerator[None, None]:
        """Around a stream of a person; see ``OpenStreams.open``. Those of agents are counted as sessions."""
        rule = RULES.get(arrival.method)
        if rule is not None and rule.about is About.AGENTS:
            yield
            return
        async with self.streams.open(caller):
            yield

    def _owner(self, arrival: Arrival, request: Any, tenants: tuple[str, ...]) -> str | None:
        rule = RULES.get(arrival.method)
        if rule is None or not rule.own or len(tenants) != 1:
            return None
        return self._owner_of(tenants[0], requests.subject_of(request))

    def _check_rate(self, arrival: Arrival, caller: Caller) -> None:
        now_s = self._monotonic_s()
        rule = RULES.get(arrival.method)
        if rule is not None and rule.about is About.AGENTS:
            wait_s = self._sessions.take("", now_s) if arrival.method == _SESSION else 0.0
            if wait_s:
                self._limited("sessions")
                raise TooManySessionsError(
                    "more agents come at once than this controller takes in",
                    hint="the agent tries again by itself",
                    retry_after_s=max(wait_s, 0.05),
                )
            return
        buckets = self._local_calls if caller.kind is Kind.LOCAL else self._calls
        wait_s = buckets.take(caller.key, now_s)
        if wait_s:
            self._limited("calls")
            raise RateLimitedError(
                f"{caller} calls more often than the controller answers: {buckets.rate}",
                hint="the command waits and tries again; programs should watch instead of asking again and again",
                retry_after_s=wait_s,
            )

    def _count_stranger(self, arrival: Arrival, buckets: Buckets) -> None:
        wait_s = buckets.take(host_of(arrival.peer), self._monotonic_s())
        if wait_s:
            self._limited("strangers")
            raise RateLimitedError(
                f"too many calls without a good token from {host_of(arrival.peer)}",
                hint="look at the token file that is used there: trainctl config explain",
                retry_after_s=wait_s,
            )

    def _limited(self, what: str) -> None:
        self._metrics.inc("trainctl_limited_calls_total", limit=what)

    def _refused(self, arrival: Arrival, caller: Caller, error: TrainctlError, request: Any) -> None:
        self._metrics.inc("trainctl_refused_calls_total", reason=error.code)
        if self._audit is not None:
            self._audit.note(_draft(arrival, caller, request), *_outcome(error), sort="refusal")


def _draft(arrival: Arrival, caller: Caller, request: Any) -> AuditRecord:
    tenant = str(request.tenant) if requests.has_field(request, "tenant") else ""
    if requests.has_field(request, "job"):
        tenant = str(request.job.metadata.tenant)
    return draft(
        caller,
        peer=arrival.peer,
        method=arrival.method,
        tenant=tenant,
        subject=requests.subject_of(request),
        request_id=requests.request_id_of(request),
    )


def _outcome(error: Exception) -> tuple[str, str]:
    if isinstance(error, TrainctlError):
        return code_of(error).name, f"{error.code}: {error}"[:300]
    return grpc.StatusCode.INTERNAL.name, type(error).__name__
