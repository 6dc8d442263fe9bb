"""The controller's API as the commands see it: deadlines on every call, retries where they are safe, our own errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc

from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.connecting import Endpoint, find_endpoint, timeout_s
from trainctl.cli.connection.following import FollowingChannel
from trainctl.cli.connection.tenant import fill_in, tenant_of
from trainctl.cli.context import Context
from trainctl.core.errors import NotFoundError, TrainctlError, UnavailableError, UsageError
from trainctl.core.system.deadline import Deadline
from trainctl.core.texts import quoted
from trainctl.protos.channels import COMMON_OPTIONS
from trainctl.protos.status import STATUS_DETAILS_KEY, error_from_rpc
from trainctl.protos.tls_failures import TlsFailedError, Wanted, why_not
from trainctl.protos.tls_probe import PROBE_S
from trainctl.protos.v1.access_pb2_grpc import AccessServiceStub
from trainctl.protos.v1.job_pb2 import GetJobRequest, Job, ListFiguresRequest, ListJobsRequest
from trainctl.protos.v1.job_pb2_grpc import JobServiceStub
from trainctl.protos.v1.join_pb2_grpc import JoinTokenServiceStub
from trainctl.protos.v1.records_pb2 import StepFigures
from trainctl.protos.version import call_metadata

Q = TypeVar("Q")
A = TypeVar("A")

RETRY_DELAYS_S = (0.1, 0.3, 0.6)
FOLLOW_EVERY_S = 0.5
"""Controllers that all stand by are asked again."""
_NOT_LEADER = "NOT_LEADER"
_TRY_AGAIN = (
    "if the leader has just died, another one takes over within its --lease-ttl: try again, or with a longer "
    "--timeout; if the one that leads is not among these, name it, too: --address"
)
_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody is there, or whoever was ended as it was asked: another one may be."""
STREAM_S = 3600.0
"""Age at which a stream is opened anew, so that no call is without a deadline."""

OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A controller whose machine vanished is noticed, too.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Each client dials for itself: a shared connection would hand on another one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


_PAGE_SIZE = 200
_PAGE_FIGURES = 1000


class AmbiguousNameError(UsageError):
    """The beginning of a name that several jobs have."""

    code = "AMBIGUOUS_NAME"


class StreamAgedError(UnavailableError):
    """A stream reached its deadline; the caller opens it again and says nothing."""


class Client:
    """One connection to a controller; use it in a ``with`` block."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        detail: Callable[[str], None] = lambda line: None,
        retries: bool = True,
        request_id: str = "",
        tenant: str = "",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Connects when the first call is made.

        Args:
            endpoint: where to.
            timeout_s: of each call.
            detail: told what it does.
            retries: whether a call that meets nobody is tried again.
            request_id: sent with each call, so that the controller's log and the user name a refusal alike.
            tenant: of requests that name none; empty: the controller knows.
            changed: called after each change that was made.
        """
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._detail = detail
        self._tenant = tenant
        self._changed = changed
        self._delays_s = RETRY_DELAYS_S if retries else ()
        sendable = request_id.isascii() and request_id.isprintable()  # what metadata may hold
        self._request_id = request_id if request_id and sendable else str(uuid.uuid4())
        self._metadata = call_metadata(endpoint.token, self._request_id)
        self._channel = FollowingChannel(endpoint.address.split(","), OPTIONS, endpoint.ca)
        self.stub = JobServiceStub(cast("grpc.Channel", self._channel))
        self.access = AccessServiceStub(cast("grpc.Channel", self._channel))
        self.join_tokens = JoinTokenServiceStub(cast("grpc.Channel", self._channel))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        """Sends one request and returns the answer.

        Only UNAVAILABLE is retried; a mutation has to carry a request id, so that a second try takes no second effect.
        Where the controller says when it wants to be asked again, it is, unless that is later than the deadline.

        Raises:
            TrainctlError: the error that the controller sent, or UnavailableError if it does not answer.
        """
        delays_s = iter(self._delays_s)
        fill_in(request, self._tenant)
        patience_s = self._timeout_s
        waiting = self._waiting()
        while True:
            try:
                answer = self._try(method, request)
                if _changes(request):
                    self._changed()
                return answer
            except grpc.RpcError as error:
                wait_s = asked_to_wait_s(error)
                if 0 < wait_s <= patience_s:
                    patience_s -= wait_s
                    self._detail(f"the controller asks to wait {wait_s:.2f} s")
                    time.sleep(wait_s)
                    continue
                if error.code() not in _GONE:
                    raise self._explained(error) from error
                waiting.saw(error)
                if self._channel.follow():
                    continue  # another one may lead
                delay_s = next(delays_s, None) or waiting.pause_s()
                if not delay_s:
                    raise self._nobody_leads(waiting) or self._explained(error) from error
            time.sleep(delay_s)

    def _try(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        begun_s, address = time.monotonic(), self._channel.address
        code = grpc.StatusCode.OK
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            raise
        finally:
            took_ms = 1000 * (time.monotonic() - begun_s)
            self._detail(f"{type(request).__name__} to {address}: {code.name} in {took_ms:.0f} ms")

    def stream(self, method: grpc.UnaryStreamMultiCallable[Q, A], request: Q) -> Iterator[A]:
        """The messages of one server stream, until the server ends it.

        Raises:
            StreamAgedError: it is open for ``STREAM_S`` seconds.
            TrainctlError: as ``call``.
        """
        begun = False
        fill_in(request, self._tenant)
        waiting = self._waiting()
        while True:
            answers = method(request, timeout=STREAM_S, metadata=self._metadata)
            try:
                for answer in answers:
                    begun = True
                    yield answer
                return
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise StreamAgedError("the stream reached its deadline") from error
                if begun or error.code() not in _GONE:
                    raise self._explained(error) from error
                waiting.saw(error)
                if not self._channel.follow():
                    pause_s = waiting.pause_s()
                    if not pause_s:
                        raise self._nobody_leads(waiting) or self._explained(error) from error
                    time.sleep(pause_s)
            finally:
                answers.cancel()

    def _waiting(self) -> _Waiting:
        """With one address there is nobody else to become the leader."""
        several = "," in self.endpoint.address
        return _Waiting(self._timeout_s if self._delays_s and several else 0.0)

    def _nobody_leads(self, waiting: _Waiting) -> UnavailableError | None:
        """Of several controllers some stand by, and none led as long as we waited."""
        if not waiting.said or not waiting.within_s:
            return None
        where = f"{self.endpoint.address} (from {self.endpoint.origin})"
        error = UnavailableError(
            f"none of the controllers at {where} led within {self._timeout_s:g} s: {waiting.said}",
            hint=waiting.hint or _TRY_AGAIN,
        )
        error.code, error.cause = _NOT_LEADER, waiting.cause
        return error

    def _misfit(self) -> TlsFailedError | None:
        """What certificates have to do with the silence of the controllers, if anything.

        All are looked at together for at most as long as one call may take.
        """
        addresses = self.endpoint.address.split(",")
        within_s = min(PROBE_S, self._timeout_s) / len(addresses)
        found = (why_not(address, _how(self.endpoint), within_s=within_s) for address in addresses)
        return next((misfit for misfit in found if misfit is not None), None)

    def _explained(self, error: grpc.RpcError) -> TrainctlError:
        """Says which address was tried when nobody answered there; otherwise what the controller said."""
        code = error.code()
        said_by_controller = any(item.key == STATUS_DETAILS_KEY for item in error.trailing_metadata() or ())
        where = f"{self.endpoint.address} (from {self.endpoint.origin})"
        if said_by_controller or code not in (*_GONE, grpc.StatusCode.DEADLINE_EXCEEDED):
            known = error_from_rpc(error)
            known.request_id = self._request_id
            return known
        if code in _GONE:
            misfit = self._misfit()
            if misfit is not None:
                return misfit
            silent = UnavailableError(f"no controller answers at {where}", hint=self.endpoint.hint)
            silent.cause = self.endpoint.cause
            return silent
        return UnavailableError(
            f"the controller at {where} did not answer within {self._timeout_s:g} s", hint=self.endpoint.late_hint
        )


class _Waiting:
    """For the next leader: somebody stands by, so there will be one soon.

    Args:
        within_s: as long as a command may take; 0: not at all.

    Attributes:
        said: what one that stands by said last, of those that know why nobody leads if there are such; empty if none
            stands by.
        hint: what helps against what keeps them from leading; empty if none knows why.
        cause: its code.
    """

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s
        self.said = self.hint = self.cause = ""
        self._deadline = Deadline(within_s)

    def saw(self, error: grpc.RpcError) -> None:
        """What one controller answered."""
        known = error_from_rpc(error)
        if known.code == _NOT_LEADER and (known.cause or not self.cause):
            self.said, self.cause, self.hint = str(known), known.cause, known.hint if known.cause else ""

    def pause_s(self) -> float:
        """How long to wait before all are asked again; 0: no more."""
        return min(FOLLOW_EVERY_S, self._deadline.left_s) if self.said else 0.0


def _changes(request: object) -> bool:
    """Whether a request wants something to be changed: those have an id, unless they only ask what would be."""
    return hasattr(request, "request_id") and not getattr(request, "validate_only", False)


def _how(endpoint: Endpoint) -> Wanted:
    how_ca = "--ca-file FILE, TRAINCTL_CA_FILE or caFile of the context"
    return Wanted(ca=endpoint.ca, ca_origin=endpoint.ca_origin, how_ca=how_ca)


def asked_to_wait_s(error: grpc.RpcError) -> float:
    """For how long the controller wants not to be asked; 0 if it did not say."""
    known = error_from_rpc(error)
    return known.retry_after_s if isinstance(known, UnavailableError) else 0.0


def connect(context: Context) -> Client:
    """A client of the controller that the context names.

    Raises:
        UnavailableError: there is none.
    """
    settings = resolve(context)
    endpoint = find_endpoint(context, settings)
    context.console.detail(f"controller {endpoint.address} (from {endpoint.origin})")
    if endpoint.in_clear:
        context.console.say(f"--insecure: the token travels unencrypted to {', '.join(endpoint.in_clear)}")

    def changed() -> None:
        context.changed = True

    return Client(
        endpoint,
        timeout_s=timeout_s(settings),
        detail=context.console.detail,
        request_id=context.request_id,
        tenant=context.tenant or tenant_of(settings),
        changed=changed,
    )


def list_jobs(client: Client) -> list[Job]:
    """All jobs, the newest first."""
    found: list[Job] = []
    token = ""
    while True:
        request = ListJobsRequest(page_size=_PAGE_SIZE, page_token=token)
        page = client.call(client.stub.ListJobs, request)
        found += page.jobs
        token = page.next_page_token
        if not token:
            return sorted(found, key=lambda job: -job.create_time_s)


def get_job(client: Client, name: str) -> Job:
    """The job of exactly this name or uid.

    Raises:
        NotFoundError: there is none.
    """
    return client.call(client.stub.GetJob, GetJobRequest(name=name)).job


def find_job(context: Context, client: Client, name: str) -> Job:
    """The job of this name or uid or, for those who only look, the only one whose name or uid begins so.

    Raises:
        NotFoundError: there is none.
        AmbiguousNameError: several begin so.
    """
    try:
        return get_job(client, name)
    except NotFoundError:
        found = _beginning_with(list_jobs(client), name)
        if not name or not found:
            raise
    if len(found) > 1:
        names = [job.spec.metadata.name for job in found]
        shown = sorted(names if len(set(names)) == len(names) else [job.uid for job in found])
        raise AmbiguousNameError(
            f"{quoted(name)} is the beginning of several jobs: {', '.join(shown)}", hint="give one of these"
        )
    job = found[0]
    context.console.say(f"{name}: job {job.spec.metadata.name}, the only one that begins so")
    return job


def list_figures(client: Client, name: str) -> list[StepFigures]:
    """All step figures of a job's surviving lineage, by step."""
    figures: list[StepFigures] = []
    while True:
        after = figures[-1].step if figures else 0
        request = ListFiguresRequest(name=name, after_step=after, limit=_PAGE_FIGURES)
        page = client.call(client.stub.ListFigures, request).figures
        if not page:
            return figures
        figures.extend(page)


def _beginning_with(jobs: Iterable[Job], name: str) -> list[Job]:
    """Of jobs, the newest first: those whose uid begins so, and of each name that begins so the newest."""
    found: dict[str, Job] = {}
    named: set[str] = set()
    for job in jobs:
        own = job.spec.metadata.name
        if job.uid.startswith(name) or (own.startswith(name) and own not in named):
            found[job.uid] = job
        named.add(own)
    return list(found.values())
