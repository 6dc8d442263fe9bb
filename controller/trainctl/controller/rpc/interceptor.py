"""What happens around every call: admission, wire version, deadline, our errors as rich statuses, counters."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from trainctl.controller.access.caller import Caller
from trainctl.controller.access.limits import RateLimitedError
from trainctl.controller.rpc.admission import Admission, Arrival, CallMetrics
from trainctl.controller.rpc.authentication import Authenticate
from trainctl.core.codec import WireError
from trainctl.core.errors import (
    InternalError,
    PreconditionError,
    TrainctlError,
    UnavailableError,
    UsageError,
)
from trainctl.core.texts import printable
from trainctl.protos.status import code_of, status_of, trailing_metadata
from trainctl.protos.version import REQUEST_HEADER, WIRE_HEADER, WIRE_VERSION, package_version

_log = logging.getLogger(__name__)
OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Called by probes that have no token."""
OWN_SERVICES = "/trainctl.v1."
_LONGEST_SHOWN = 100
LONGEST_UNARY_S = 60.0
"""Imposed on unary calls that come without a deadline."""


class VersionMismatchError(PreconditionError):
    """Caller and controller speak different wires."""

    code = "VERSION_MISMATCH"


class DeadlineExceededError(UnavailableError):
    """The call took longer than its deadline, or than any unary call may."""

    code = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class _Method:
    service: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.service}/{self.name}"


class Gate(aio.ServerInterceptor):
    """Lets a call in or refuses it, then runs it and turns what it raises into a status.

    Args:
        admission: who may do what, and how often.
        authenticate: finds out who calls.
        metrics: counts finished calls.
    """

    def __init__(self, admission: Admission, authenticate: Authenticate, metrics: CallMetrics) -> None:
        self._admission = admission
        self._authenticate = authenticate
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None or path.startswith(OPEN_SERVICES):
            return handler
        _, service, name = path.split("/")
        return self._wrap(handler, _Method(service, name))

    def _wrap(self, handler: grpc.RpcMethodHandler[Any, Any], method: _Method) -> grpc.RpcMethodHandler[Any, Any]:
        coders = {
            "request_deserializer": _reading(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        kind = (handler.request_streaming, handler.response_streaming)
        if kind == (False, False):
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **coders)
        if kind == (False, True):
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method), **coders)
        return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method), **coders)

    def _unary(self, behaviour: Any, method: _Method) -> Any:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            began_s = time.monotonic()
            code = grpc.StatusCode.OK
            try:
                arrival, caller = self._let_in(method, request, context)
                async with _deadline(context), self._admission.noted(arrival, caller, request):
                    return await behaviour(request, context)
            except Exception as error:
                code = await _abort(context, error, method)
                return None
            finally:
                self._count(method, code)
                took_s = time.monotonic() - began_s
                self._metrics.observe(
                    "grpc_server_handling_seconds", took_s, grpc_service=method.service, grpc_method=method.name
                )

        return call

    def _streaming(self, behaviour: Any, method: _Method) -> Any:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            code = grpc.StatusCode.CANCELLED
            try:
                arrival, caller = self._let_in(method, request, context)
                if isinstance(request, AsyncIterator):
                    request = _readable(cast("AsyncIterator[object]", request))
                async with self._admission.streaming(arrival, caller):
                    await _answer(behaviour, request, context)
                code = grpc.StatusCode.OK
            except Exception as error:
                code = await _abort(context, error, method)
            finally:
                self._count(method, code)

        return call

    def _let_in(self, method: _Method, request: Any, context: Any) -> tuple[Arrival, Caller]:
        """Raises: TrainctlError: the call is not let in."""
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        arrival = Arrival(method=method.path, metadata=metadata, context=context)
        caller = self._admission.identify(arrival, self._authenticate)
        if f"/{method.path}".startswith(OWN_SERVICES):
            _check_wire(metadata)
            if isinstance(request, WireError):
                raise request
            self._admission.permit(arrival, caller, request)
        return arrival, caller

    def _count(self, method: _Method, code: grpc.StatusCode) -> None:
        self._metrics.inc(
            "grpc_server_handled_total",
            grpc_service=method.service,
            grpc_method=method.name,
            grpc_code=code.name,
        )


def _check_wire(metadata: Mapping[str, Any]) -> None:
    wire = str(metadata.get(WIRE_HEADER, ""))[:_LONGEST_SHOWN]
    if wire != str(WIRE_VERSION):
        found = f"wire version {printable(wire)}" if wire else "no wire version"
        raise VersionMismatchError(
            f"expected wire version {WIRE_VERSION} (controller {package_version()}), the caller sent {found}",
            hint="use the same trainctl version on both sides; `trainctl version` shows them",
        )


async def _answer(behaviour: Any, request: Any, context: aio.ServicerContext[Any, Any]) -> None:
    if not inspect.isasyncgenfunction(behaviour):
        await behaviour(request, context)
        return
    # Closed explicitly: when the client hangs up, the generator's clean-up runs now, not some day.
    async with contextlib.aclosing(behaviour(request, context)) as answers:
        async for answer in answers:
            await context.write(answer)


async def _readable(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages of a stream, up to the first that is none."""
    async for message in messages:
        if isinstance(message, WireError):
            raise message
        yield message


def _reading(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Hands on, instead of a message, why there is none: gRPC itself would log a traceback and answer UNKNOWN."""
    if deserializer is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return WireError(f"expected a protobuf message, found {len(data)} bytes that are none: {error}")

    return read


@contextlib.asynccontextmanager
async def _deadline(context: Any) -> AsyncGenerator[None, None]:
    left_s = context.time_remaining()
    limit_s = LONGEST_UNARY_S if left_s is None else min(LONGEST_UNARY_S, left_s)
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceededError(f"no answer within {limit_s:.1f} s") from error


async def _abort(context: aio.ServicerContext[Any, Any], error: Exception, method: _Method) -> grpc.StatusCode:
    """Ends the call with the error's status and returns its code."""
    if isinstance(error, aio.AbortError):
        raise error
    known = _as_ours(error, method, _request_id(context))
    code = code_of(known)
    try:
        await context.abort(code, status_of(known).message, trailing_metadata(known))
    except aio.AbortError:
        # The status is set; raising it further would only log a traceback.
        return code
    return code


def _request_id(context: aio.ServicerContext[Any, Any]) -> str:
    """The caller's name for this call, shortened to what a log can bear."""
    metadata: Mapping[str, Any] = {str(k): v for k, v in context.invocation_metadata() or ()}
    return printable(str(metadata.get(REQUEST_HEADER, ""))[:_LONGEST_SHOWN])


def _as_ours(error: Exception, method: _Method, request_id: str) -> TrainctlError:
    if isinstance(error, WireError):
        return UsageError(f"{method.name}: {error}", hint="use the same trainctl version on both sides")
    if isinstance(error, TrainctlError):
        refusal = {"request_id": request_id, "reason": error.code, "why": str(error)[:500]}
        if not isinstance(error, RateLimitedError):  # a flood must not fill the log
            _log.info("%s refused", method.name, extra=refusal)
        return error
    _log.error("%s failed", method.name, exc_info=error, extra={"request_id": request_id})
    return InternalError(
        f"{method.name} failed: {type(error).__name__}: {error}", hint="the controller's log has the traceback"
    )
